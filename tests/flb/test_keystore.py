# SPDX-License-Identifier: Apache-2.0
"""Keystores: nothing is overwritten, nobody else may read, and no error text holds a secret."""

import copy
import json
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account

from flb import keystore
from flb.errors import KeystoreError
from flb.identity import address_of

pytestmark = pytest.mark.unit

KEY = bytes(range(1, 33))
PASSWORD = b"correct horse"
ROUNDS = 1_000


def a_keystore(folder: Path) -> Path:
    path = folder / "key.json"
    keystore.create(path, PASSWORD, KEY, ROUNDS)
    return path


def fault(call: Callable[[], object]) -> str:
    """The sentence of the KeystoreError that `call` raises; neither it nor its causes may show a secret."""
    with pytest.raises(KeystoreError) as caught:
        call()
    everything = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value.__cause__)
    for secret in (KEY.hex(), PASSWORD.decode(), repr(KEY)[2:-1]):
        assert secret not in everything
    return str(caught.value)


def test_create__given_key__comes_back_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    path = a_keystore(tmp_path)
    assert keystore.load(path, PASSWORD) == KEY
    assert keystore.stored_address(path) == address_of(KEY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY.hex() not in path.read_text()


def test_create__written_file__opens_in_another_library(tmp_path: Path) -> None:
    assert bytes(Account.decrypt(a_keystore(tmp_path).read_text(), PASSWORD.decode())) == KEY


def test_create__no_key__makes_another_one_each_time(tmp_path: Path) -> None:
    first = keystore.create(tmp_path / "new" / "a.json", PASSWORD, rounds=ROUNDS)
    assert first != keystore.create(tmp_path / "new" / "b.json", PASSWORD, rounds=ROUNDS)
    assert address_of(keystore.load(tmp_path / "new" / "a.json", PASSWORD)) == first


def test_create__default__derives_with_a_million_rounds(tmp_path: Path) -> None:
    keystore.create(tmp_path / "key.json", PASSWORD, KEY)
    parameters = json.loads((tmp_path / "key.json").read_text())["crypto"]["kdfparams"]
    assert parameters["c"] == 1_000_000
    assert parameters["prf"] == "hmac-sha256"


def test_create__existing_file__is_not_overwritten(tmp_path: Path) -> None:
    path = a_keystore(tmp_path)
    before = path.read_bytes()
    assert "exists" in fault(lambda: keystore.create(path, PASSWORD, KEY, ROUNDS))
    assert path.read_bytes() == before


def test_create__dangling_link__is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "link.json"
    path.symlink_to(tmp_path / "elsewhere.json")
    assert "exists" in fault(lambda: keystore.create(path, PASSWORD, KEY, ROUNDS))


def test_create__parent_is_a_file__is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fault(lambda: keystore.create(tmp_path / "file" / "k", PASSWORD, KEY, ROUNDS))


@pytest.mark.parametrize("key", [bytes(32), b"\xff" * 32, KEY[:31], KEY + b"\0", b""])
def test_create__bytes_that_are_no_key__are_refused(tmp_path: Path, key: bytes) -> None:
    assert "not a number of the curve" in fault(lambda: keystore.create(tmp_path / "k", PASSWORD, key, ROUNDS))
    assert list(tmp_path.iterdir()) == []


def test_load__wrong_password__says_what_to_check(tmp_path: Path) -> None:
    path = a_keystore(tmp_path)
    assert fault(lambda: keystore.load(path, b"wrong")).endswith("check the password, or restore the file from a copy")


def test_load__missing_file__names_the_command_that_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    for call in (lambda: keystore.load(path, PASSWORD), lambda: keystore.stored_address(path)):
        assert fault(call) == f"the keystore {path} is missing: make one with flb account new"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff\xfe", b'{"address": "0x12"}', b"{}"])
def test_load__other_file__is_no_keystore(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.json"
    path.write_bytes(content)
    fault(lambda: keystore.load(path, PASSWORD))
    assert "is no keystore" in fault(lambda: keystore.stored_address(path))


BAD: tuple[Any, ...] = (None, -1, "x", [], {}, "00", True, 1.5, 10**30)


@pytest.mark.parametrize(
    "where",
    ["version", "crypto", "crypto.cipher", "crypto.cipherparams", "crypto.cipherparams.iv", "crypto.ciphertext",
     "crypto.kdf", "crypto.kdfparams", "crypto.kdfparams.c", "crypto.kdfparams.dklen", "crypto.kdfparams.prf",
     "crypto.kdfparams.salt", "crypto.mac"],
)  # fmt: skip
def test_load__damaged_field__is_one_sentence_and_never_another_key(tmp_path: Path, where: str) -> None:
    path = a_keystore(tmp_path)
    good = json.loads(path.read_text())
    *way, last = where.split(".")
    for value in BAD:
        damaged: Any = copy.deepcopy(good)
        part = damaged
        for name in way:
            part = part[name]
        part[last] = value
        path.write_text(json.dumps(damaged))
        try:
            assert keystore.load(path, PASSWORD) == KEY  # eth_keyfile does not read this field
        except KeystoreError:
            fault(lambda: keystore.load(path, PASSWORD))


def test_load__damaged_initial_vector__does_not_give_another_key(tmp_path: Path) -> None:
    path = a_keystore(tmp_path)
    value = json.loads(path.read_text())
    value["crypto"]["cipherparams"]["iv"] = "00" * 16
    path.write_text(json.dumps(value))
    assert "does not open" in fault(lambda: keystore.load(path, PASSWORD))


def test_load__keystore_without_address__opens(tmp_path: Path) -> None:
    path = a_keystore(tmp_path)
    value = json.loads(path.read_text())
    del value["address"]
    path.write_text(json.dumps(value))
    assert keystore.load(path, PASSWORD) == KEY


def test_read_password__file__loses_its_line_end_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_bytes(b" two words \r\n")
    assert keystore.read_password(path) == b" two words "


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_read_password__empty_file__is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    assert "is empty" in fault(lambda: keystore.read_password(path))


def test_read_password__missing_file__is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in fault(lambda: keystore.read_password(tmp_path / "none"))


def test_password_file__setting__wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLB_PASSWORD_FILE", "/from/environment")
    assert keystore.password_file(Path("/from/setting")) == Path("/from/setting")
    assert keystore.password_file(None) == Path("/from/environment")
    assert keystore.password_file(None, "FLB_OTHER_FILE") is None
    monkeypatch.setenv("FLB_PASSWORD_FILE", "")
    assert keystore.password_file(None) is None
