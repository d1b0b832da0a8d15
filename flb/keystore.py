# SPDX-License-Identifier: Apache-2.0
"""Encrypted keys on disk: keystore v3 files as every Ethereum wallet reads them.

The key is derived with PBKDF2: scrypt would take 256 MiB each time a keystore is opened, for every node on a machine.
No text of an error holds a secret.
"""

import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any

from flb.errors import KeystoreError
from flb.identity import address_of
from flb.store import write_atomic
from flb.types import Address

PBKDF2_ROUNDS = 1_000_000
ROLES = ("owner", "aggregator", "node", "payee")
"""What a key may be made for; one key for two roles risks both at once."""
ROLE_FIELD = "flb-role"
_MALFORMED = (
    ValueError, KeyError, TypeError, NotImplementedError, AttributeError, AssertionError, OverflowError,
)  # fmt: skip
"""What eth_keyfile raises for files that are no keystore, and for a wrong password."""


def read_password(path: Path) -> bytes:
    """The password in a file, without its line end. Raises KeystoreError."""
    try:
        password = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise KeystoreError(f"the password file {path} cannot be read", "make it, readable by you alone") from error
    if not password:
        raise KeystoreError(f"the password file {path} is empty", "write the keystore's password into it")
    return password


def create(
    path: Path, password: bytes, key: bytes | None = None, rounds: int = PBKDF2_ROUNDS, role: str | None = None
) -> Address:
    """Write a keystore with a new key, or a given one; never over an existing file. Raises KeystoreError.

    `role`, one of ROLES, is noted in a field of our own, which wallets pass over.
    """
    if os.path.lexists(path):
        raise KeystoreError(f"{path} exists", "choose another name; a key that is overwritten is lost")
    if key is None:
        key = secrets.token_bytes(32)
    try:
        if len(key) != 32:
            raise ValueError(len(key))
        address = address_of(key)
    except ValueError as error:
        raise KeystoreError("the private key is not a number of the curve", "give 32 bytes in hex") from error
    value = _eth_keyfile().create_keyfile_json(key, password, kdf="pbkdf2", iterations=rounds)
    text = json.dumps(value if role is None else {**value, ROLE_FIELD: role})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode(), mode=0o600)
    except OSError as error:
        raise KeystoreError(f"{path} cannot be written ({error.strerror})", "choose another folder") from error
    return address


def load(path: Path, password: bytes) -> bytes:
    """The private key. Raises KeystoreError."""
    value = _read(path)
    try:
        key = bytes(_eth_keyfile().decode_keyfile_json(value, password))
        # the format's MAC leaves the IV out: a damaged one would give another account's key
        if "address" in value and stored_address(path) != address_of(key):
            raise ValueError("the key belongs to another address")
        return key
    except _MALFORMED as error:
        raise KeystoreError(f"{path} does not open", "check the password, or restore the file from a copy") from error


def stored_address(path: Path) -> Address:
    """The address that a keystore file names, without opening it."""
    try:
        address = Address(bytes.fromhex(str(_read(path)["address"]).removeprefix("0x")))
        if len(address) != 20:
            raise ValueError(len(address))
        return address
    except (ValueError, KeyError) as error:
        raise KeystoreError(f"{path} is no keystore", "restore the file from a copy") from error


def stored_role(path: Path) -> str | None:
    """The role that a keystore was made for; None where it names none. Raises KeystoreError."""
    role = _read(path).get(ROLE_FIELD)
    return role if isinstance(role, str) and role in ROLES else None


def _eth_keyfile() -> Any:
    """The library. It brings py_ecc, which lifts the recursion limit on import: see flb.chain."""
    limit = sys.getrecursionlimit()
    import eth_keyfile

    sys.setrecursionlimit(limit)
    return eth_keyfile


def _read(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise KeystoreError(f"the keystore {path} is missing", "make one with flb account new") from error
    except (OSError, ValueError) as error:
        raise KeystoreError(f"{path} is no keystore", "restore the file from a copy") from error
    if not isinstance(value, dict):
        raise KeystoreError(f"{path} is no keystore", "restore the file from a copy")
    return value


def password_file(default: Path | None, name: str = "FLB_PASSWORD_FILE") -> Path | None:
    """Where the password is: the setting, or the environment's NAME_FILE."""
    if default is not None:
        return default
    return Path(os.environ[name]) if os.environ.get(name) else None
