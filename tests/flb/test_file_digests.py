# SPDX-License-Identifier: Apache-2.0
"""The note beside the files: used where nothing changed, harmless where it is damaged."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import file_digests
from flb.file_digests import NOTE, digests

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read, and a clock an hour ahead, so that fresh files have settled."""
    names: list[str] = []
    real = file_digests.digest_of_file

    def counted(path: Path) -> bytes:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(file_digests, "digest_of_file", counted)
    later = time.time_ns() + 3_600_000_000_000
    monkeypatch.setattr(file_digests.time, "time_ns", lambda: later)
    return names


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_digests__second_time__reads_nothing(file: Path, hashed: list[str]) -> None:
    other = file.with_name("second.safetensors")
    other.write_bytes(b"more")
    expected = {file.name: sha(b"weights"), other.name: sha(b"more")}
    assert digests([file, other]) == expected
    assert digests([file, other]) == expected
    assert hashed == [file.name, other.name]


@pytest.mark.parametrize("keep_time", [False, True])
def test_digests__changed_file__is_read_again(file: Path, hashed: list[str], keep_time: bool) -> None:
    digests([file])
    stat = file.stat()
    file.write_bytes(b"Weights")
    if keep_time:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digests([file]) == {file.name: sha(b"Weights")}
    assert hashed == [file.name] * 2


def test_digests__replaced_file_of_the_same_size_and_time__is_read_again(file: Path, hashed: list[str]) -> None:
    digests([file])
    stat, other = file.stat(), file.with_name("other")
    other.write_bytes(b"Weights")
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(file)
    assert digests([file]) == {file.name: sha(b"Weights")}


def test_digests__file_changed_a_moment_ago__is_not_trusted_to_stay(file: Path) -> None:
    digests([file])
    assert json.loads((file.parent / NOTE).read_text())[file.name][0] == -1


@given(st.binary(max_size=80) | st.sampled_from([b"[]", b"{}", b'{"model.safetensors": []}', b"[" * 5000, b"null"]))
def test_digests__damaged_note__is_harmless(tmp_path_factory: pytest.TempPathFactory, damage: bytes) -> None:
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    file.write_bytes(b"weights")
    (file.parent / NOTE).write_bytes(damage)
    assert digests([file]) == {file.name: sha(b"weights")}


def test_digests__note_cannot_be_written__still_right(file: Path) -> None:
    (file.parent / NOTE).mkdir()
    assert digests([file]) == {file.name: sha(b"weights")}
