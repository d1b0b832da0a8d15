# SPDX-License-Identifier: Apache-2.0
"""`flb account`: secrets come from files or a terminal, stay off the screen, and nothing is overwritten."""

import getpass
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flb import keystore
from flb.errors import KeystoreError
from flb.identity import address_of
from flb_cli import account
from flb_cli.main import main

pytestmark = pytest.mark.unit

KEY = bytes(range(1, 33))
ADDRESS = "0x" + address_of(KEY).hex()
PASSWORD = "correct horse"


@pytest.fixture
def password_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the password; the environment names none."""
    monkeypatch.delenv("FLB_PASSWORD_FILE", raising=False)
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\n")
    return path


@pytest.fixture
def stored(tmp_path: Path, password_file: Path) -> Path:
    """A keystore of KEY, quickly derived."""
    path = tmp_path / "keys" / "node.json"
    keystore.create(path, PASSWORD.encode(), KEY, rounds=1_000)
    return path


def terminal(monkeypatch: pytest.MonkeyPatch, *typed: str) -> list[str]:
    """A terminal on which somebody types these lines; returns the prompts that were shown."""
    lines: Iterator[str] = iter(typed)
    prompts: list[str] = []

    def ask(prompt: str = "") -> str:
        prompts.append(prompt)
        return next(lines)

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(getpass, "getpass", ask)
    return prompts


def flb(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and error output of a command; neither output holds the password or the key."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert PASSWORD not in out + err
    assert KEY.hex() not in out + err
    return code, out, err


def test_new__password_file__writes_a_keystore_that_opens(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.json"
    code, out, _ = flb(capsys, "account", "new", path, "--password-file", password_file, "--json")
    said: Any = json.loads(out)
    assert code == 0
    assert said["file"] == str(path)
    assert said["address"] == "0x" + address_of(keystore.load(path, PASSWORD.encode())).hex()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    code, _, err = flb(capsys, "account", "new", path, "--password-file", password_file)
    assert code == KeystoreError.exit_code
    assert "exists" in err
    assert path.read_bytes() == before


def test_new__with_a_role__notes_it_and_another_use_is_a_warning(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key.json"
    words = ["account", "new", path, "--role", "payee", "--password-file", password_file, "--json"]
    code, out, _ = flb(capsys, *words)
    assert code == 0 and json.loads(out)["role"] == "payee" and keystore.stored_role(path) == "payee"
    key = account.open_key(path, password_file, "owner")
    assert capsys.readouterr().err == f"flb: {path} was made for the role payee, and acts as owner here\n"
    assert account.open_key(path, password_file, "payee") == key
    assert capsys.readouterr().err == ""


def test_new__no_password_and_no_terminal__says_how_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLB_PASSWORD_FILE", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    code, out, err = flb(capsys, "account", "new", tmp_path / "key.json", "--json")
    assert code == 11
    assert "--password-file or FLB_PASSWORD_FILE" in err
    assert json.loads(out)["code"] == "keystore"
    assert not (tmp_path / "key.json").exists()


def test_password__typed_on_a_terminal__is_asked_twice_when_it_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLB_PASSWORD_FILE", raising=False)
    prompts = terminal(monkeypatch, "a b", "a b")
    assert account.password(None, fresh=True) == b"a b"
    assert len(prompts) == 2
    prompts = terminal(monkeypatch, "a b")
    assert account.password(None) == b"a b"
    assert len(prompts) == 1


@pytest.mark.parametrize(("typed", "says"), [(("a", "b"), "differ"), (("",), "empty")])
def test_password__typed_wrongly__is_refused(
    monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], says: str
) -> None:
    monkeypatch.delenv("FLB_PASSWORD_FILE", raising=False)
    terminal(monkeypatch, *typed)
    with pytest.raises(KeystoreError, match=says):
        account.password(None, fresh=True)


def test_password__environment__names_the_file(monkeypatch: pytest.MonkeyPatch, password_file: Path) -> None:
    monkeypatch.setenv("FLB_PASSWORD_FILE", str(password_file))
    assert account.password(None) == PASSWORD.encode()


@pytest.mark.parametrize("text", [KEY.hex(), "0x" + KEY.hex() + "\n", f"  {KEY.hex().upper()}  "])
def test_read_key__hex_as_wallets_write_it__is_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "key").write_text(text)
    assert account.read_key(tmp_path / "key") == KEY
    terminal(monkeypatch, text)
    assert account.read_key(None) == KEY


@pytest.mark.parametrize("content", [b"", KEY.hex().encode()[:-2], KEY.hex().encode() + b"0g", b"\xff" * 64, KEY])
def test_import__file_that_holds_no_key__is_refused_without_showing_it(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    (tmp_path / "key").write_bytes(content)
    code, _, err = flb(
        capsys,
        "account",
        "import",
        tmp_path / "k.json",
        "--key-file",
        tmp_path / "key",
        "--password-file",
        password_file,
    )
    assert code == 11
    assert not (tmp_path / "k.json").exists()
    assert KEY.hex()[:16] not in err
    assert repr(KEY)[2:20] not in err


def test_import__key_file__becomes_a_keystore(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(KEY.hex())
    path = tmp_path / "k.json"
    code, out, _ = flb(
        capsys, "account", "import", path, "--key-file", tmp_path / "key", "--password-file", password_file
    )
    assert code == 0
    assert out.strip() == ADDRESS
    assert keystore.load(path, PASSWORD.encode()) == KEY


def test_import__key_as_an_argument__does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["account", "import", str(tmp_path / "k.json"), "--key", KEY.hex()])
    with pytest.raises(SystemExit):
        main(["account", "import", str(tmp_path / "k.json"), KEY.hex()])
    capsys.readouterr()
    code, _, err = flb(capsys, "account", "import", tmp_path / "k.json", "--key-file", KEY.hex())
    assert code == 11
    assert "the key file cannot be read" in err


def test_list__folder__has_the_keystores_and_nothing_else(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stored.parent
    keystore.create(folder / "a.json", b"x", bytes(31) + b"\x02", rounds=1_000, role="payee")
    (folder / "config.json").write_text('{"address": "0x12"}')
    (folder / "notes.txt").write_text("hello")
    (folder / "model.bin").write_bytes(b"{" * (account.KEYSTORE_BYTES + 1))
    (folder / "folder.json").mkdir()
    code, out, _ = flb(capsys, "account", "list", folder, "--json")
    other = "0x" + address_of(bytes(31) + b"\x02").hex()
    expected = [
        {"address": other, "role": "payee", "file": f"{folder}/a.json"},
        {"address": ADDRESS, "role": None, "file": str(stored)},
    ]
    assert code == 0
    assert json.loads(out) == expected
    assert flb(capsys, "account", "list", folder)[1].splitlines() == [
        f"{other}  payee       {folder}/a.json", f"{ADDRESS}  -           {stored}",
    ]  # fmt: skip
    code, _, err = flb(capsys, "account", "list", tmp_path / "none")
    assert code == 11
    assert "cannot be read" in err


def test_export__keystore__writes_the_key_for_its_owner_alone_and_warns(
    stored: Path, password_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["account", "export", stored, "--out", tmp_path / "key.hex", "--password-file", password_file]
    code, out, err = flb(capsys, *words, "--json")
    assert code == 0
    assert json.loads(out) == {"address": ADDRESS, "file": f"{tmp_path}/key.hex"}
    assert (tmp_path / "key.hex").read_text() == KEY.hex() + "\n"
    assert stat.S_IMODE((tmp_path / "key.hex").stat().st_mode) == 0o600
    assert "without encryption" in err
    assert ADDRESS in err
    assert "delete it" in err
    (tmp_path / "key.hex").write_text("mine")
    code, _, err = flb(capsys, *words)
    assert code == 11
    assert "exists" in err
    assert (tmp_path / "key.hex").read_text() == "mine"


def test_export__wrong_password__writes_nothing(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wrong").write_text("wrong")
    out = tmp_path / "key.hex"
    code, _, err = flb(capsys, "account", "export", stored, "--out", out, "--password-file", tmp_path / "wrong")
    assert code == 11
    assert "check the password" in err
    assert not out.exists()


def test_export__folder_that_is_not_there__is_one_sentence(
    stored: Path, password_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "none" / "key.hex"
    code, _, err = flb(capsys, "account", "export", stored, "--out", out, "--password-file", password_file)
    assert code == 11
    assert "cannot be written" in err


@pytest.mark.parametrize("text", ["", "0x", "0x12", "ab" * 20, "0x" + "zz" * 20, "0x" + "ab " * 14, "0x" + "ab" * 21])
def test_fund__text_that_is_no_address__is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["account", "fund", text])
    assert caught.value.code == 2
    assert "give 0x and 40 hex digits" in capsys.readouterr().err
