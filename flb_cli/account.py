# SPDX-License-Identifier: Apache-2.0
"""`flb account`: encrypted keys on disk, and coins for them on a local chain.

A secret comes from a file or a terminal, never from the command line, which every user of the machine can read.
"""

import argparse
import getpass
import json
import os
import sys
from pathlib import Path

from flb.errors import KeystoreError
from flb.types import Address
from flb_cli.chain import RPC, address

KEYSTORE_BYTES = 1 << 16
"""A larger file is none."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    text = "make, import, list, export and fund accounts"
    parser = subparsers.add_parser("account", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    new = _verb(verbs, "new", "make a new key and write it as an encrypted keystore")
    new.add_argument("file", type=Path, metavar="FILE", help="where to write the keystore; never over an existing file")
    _add_role(new)
    _add_password(new)
    new.set_defaults(run=make)

    bring = _verb(verbs, "import", "write a key that you have as an encrypted keystore")
    bring.add_argument("file", type=Path, metavar="FILE", help="where to write it; never over an existing file")
    bring.add_argument(
        "--key-file", type=Path, metavar="FILE", help="file with the private key in hex (default: ask on the terminal)"
    )
    _add_role(bring)
    _add_password(bring)
    bring.set_defaults(run=bring_in)

    show = _verb(verbs, "list", "list the keystores of a folder with their addresses and roles")
    show.add_argument("folder", type=Path, metavar="FOLDER", help="folder of keystores; folders in it are not searched")
    show.set_defaults(run=show_all)

    out = _verb(
        verbs,
        "export",
        "write the private key of a keystore unencrypted; whoever reads that file can act as the account",
    )
    out.add_argument("file", type=Path, metavar="FILE", help="the keystore")
    out.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="where to write the key in hex; never over a file"
    )
    _add_password(out)
    out.set_defaults(run=export)

    give = _verb(verbs, "fund", "send test coins to an account; on a local chain only")
    give.add_argument("address", type=address, metavar="ADDRESS", help="who gets them: 0x and 40 hex digits")
    give.add_argument("--rpc", default=RPC, metavar="URL", help=f"JSON-RPC endpoint of the chain (default: {RPC})")
    give.set_defaults(run=fund)


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    # no abbreviations: --key would pass for --key-file, and somebody would give it a key
    verb = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    return verb


def _add_role(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--role", choices=("owner", "aggregator", "node", "payee"), help="what the key is for; noted in the keystore"
    )


def _add_password(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file with the keystore's password (default: the file that FLB_PASSWORD_FILE names, else ask)",
    )


def password(file: Path | None, fresh: bool = False) -> bytes:
    """The password, from `file`, from the environment's file, or typed, twice if it is `fresh`. Raises KeystoreError."""
    from flb import keystore

    path = keystore.password_file(file)
    if path is not None:
        return keystore.read_password(path)
    typed = _ask("password: ", "no password is given", "name a file with --password-file or FLB_PASSWORD_FILE")
    if not typed:
        raise KeystoreError("the password is empty", "type one")
    if fresh and getpass.getpass("password again: ") != typed:
        raise KeystoreError("the two passwords differ", "type them again")
    return typed.encode()


def _ask(prompt: str, missing: str, remedy: str) -> str:
    if not sys.stdin.isatty():
        raise KeystoreError(f"{missing} and there is no terminal to ask on", remedy)
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise KeystoreError(missing, remedy) from None


def make(arguments: argparse.Namespace) -> int:
    """`flb account new`."""
    from flb import keystore

    return _say(
        arguments, keystore.create(arguments.file, password(arguments.password_file, fresh=True), role=arguments.role)
    )


def bring_in(arguments: argparse.Namespace) -> int:
    """`flb account import`."""
    from flb import keystore

    key = read_key(arguments.key_file)
    return _say(
        arguments,
        keystore.create(arguments.file, password(arguments.password_file, fresh=True), key, role=arguments.role),
    )


def read_key(file: Path | None) -> bytes:
    """A private key in hex, from a file or typed. Raises KeystoreError, which never shows what was read."""
    if file is None:
        text = _ask("private key in hex: ", "no private key is given", "name a file with --key-file")
    else:
        try:
            text = file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            # without its name, which may be a key that was given in its place
            raise KeystoreError("the key file cannot be read", "name a text file that holds 64 hex digits") from None
    try:
        key = bytes.fromhex(text.strip().removeprefix("0x"))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise KeystoreError("the private key is not 64 hex digits", "give it as your wallet exports it")
    return key


def open_key(file: Path, password_path: Path | None, role: str) -> bytes:
    """The key of a keystore, for an act of `role`; says so on stderr where it was made for another. Raises KeystoreError."""
    from flb import keystore

    made_for = keystore.stored_role(file)
    if made_for not in (None, role):
        print(f"flb: {file} was made for the role {made_for}, and acts as {role} here", file=sys.stderr)
    return keystore.load(file, password(password_path))


def _say(arguments: argparse.Namespace, made: Address) -> int:
    shown = "0x" + made.hex()
    result = {"address": shown, "file": str(arguments.file), "role": arguments.role}
    print(json.dumps(result) if arguments.json else shown)
    return 0


def show_all(arguments: argparse.Namespace) -> int:
    """`flb account list`."""
    from flb import keystore

    try:
        files = sorted(path for path in arguments.folder.iterdir() if path.is_file())
        small = [path for path in files if path.stat().st_size <= KEYSTORE_BYTES]
    except OSError as error:
        raise KeystoreError(f"the folder {arguments.folder} cannot be read", "name the folder of keystores") from error
    found = []
    for path in small:
        try:
            shown = "0x" + keystore.stored_address(path).hex()
            found.append({"address": shown, "role": keystore.stored_role(path), "file": str(path)})
        except KeystoreError:
            continue  # another file
    if arguments.json:
        print(json.dumps(found))
    else:
        for item in found:
            print(f"{item['address']}  {item['role'] or '-':10}  {item['file']}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """`flb account export`."""
    from flb import keystore
    from flb.identity import address_of

    if os.path.lexists(arguments.out):
        raise KeystoreError(f"{arguments.out} exists", "choose another name")
    key = keystore.load(arguments.file, password(arguments.password_file))
    try:
        descriptor = os.open(arguments.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeystoreError(f"{arguments.out} cannot be written ({error.strerror})", "choose another name") from error
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.hex() + "\n")
    shown = "0x" + address_of(key).hex()
    print(
        f"{arguments.out} holds the key without encryption: whoever reads it, or a backup of it, can sign as {shown} and "
        "spend what that account holds, and nobody can undo that; delete it as soon as it has served its purpose",
        file=sys.stderr,
    )
    print(json.dumps({"address": shown, "file": str(arguments.out)}) if arguments.json else str(arguments.out))
    return 0


def fund(arguments: argparse.Namespace) -> int:
    """`flb account fund`."""
    from flb.chain import local
    from flb.chain.rpc import Rpc

    rpc = Rpc(arguments.rpc)
    local.fund(rpc, arguments.address)
    shown = "0x" + arguments.address.hex()
    wei = rpc.quantity("eth_getBalance", shown, "latest")
    if arguments.json:
        print(json.dumps({"address": shown, "wei": str(wei)}))
    else:
        print(f"{shown} holds {wei / 10**18:g} test coins")
    return 0
