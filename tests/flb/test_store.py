# SPDX-License-Identifier: Apache-2.0
"""Blobs and journal: whole or absent, and the same after a crash."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flb import rounds, store
from flb.errors import CorruptStore, NotAllowedHere
from flb.journal import Journal
from flb.records import Closing, Roll
from flb.store import BlobStore, digest_of_file, lock_folder, write_atomic
from flb.types import ZERO_DIGEST, Admitted, Block, Digest, Round
from tests.sim import manifest_for, members, opening, small_spec

pytestmark = pytest.mark.unit

NAME = (Round(1), Digest(b"\x05" * 32))


def facts() -> list[rounds.Fact]:
    opened = opening()
    held = Admitted(manifest_for(small_spec(), opened, members(3)[0], b"x"), b"\x01" * 65, 7, b"\x02" * 65)
    roll = Roll(NAME[0], *(Digest(bytes([n]) * 32) for n in range(3)), ZERO_DIGEST, ZERO_DIGEST, 1, 7)
    return [
        rounds.PeerUploadBegun(NAME, members(3)[0].node),
        rounds.PeerUpdateAdmitted(NAME, held),
        rounds.IntakeClosed(NAME, Closing((held,), (members(3)[1].node,), (members(3)[2].node,))),
        rounds.StepCombined(NAME, roll, Block(7, Digest(b"\x77" * 32))),
    ]


def test_journal__every_fact__comes_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    for fact in facts():
        journal.append(fact)
    journal.close()
    assert list(Journal(tmp_path / "journal.sqlite").facts()) == facts()


def test_journal__process_killed_after_append__holds_the_fact(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    code = (
        "import os, sys; from flb.journal import Journal; from tests.flb.test_store import facts;"
        "from pathlib import Path; Journal(Path(sys.argv[1])).append(facts()[1]); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == -9
    assert list(Journal(path).facts()) == [facts()[1]]


def test_journal__synchronous_full__as_receipts_need(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_journal__damaged_file__is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 100)
    with pytest.raises(CorruptStore, match="cannot be opened"):
        Journal(path)


def test_journal__unknown_row__is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    journal._db.execute("INSERT INTO facts (round, seed, kind, body) VALUES (1, x'00', 'Other', '{}')")
    with pytest.raises(CorruptStore, match="cannot be read"):
        list(journal.facts())


def test_blob_store__put__twice_is_one_file(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"bytes")
    assert store.put(b"bytes") == digest == hashlib.sha256(b"bytes").digest()
    assert store.get(digest) == b"bytes" and digest_of_file(store.path(digest)) == digest
    assert [path.name for path in store.folder.iterdir()] == [digest.hex()]


def test_blob_store__altered_or_missing__is_refused(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    digest = store.put(b"bytes")
    store.path(digest).write_bytes(b"other")
    with pytest.raises(CorruptStore, match="was altered"):
        store.get(digest)
    with pytest.raises(CorruptStore, match="cannot be read"):
        store.get(Digest(bytes(32)))


def test_blob_writer__without_commit__leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(ValueError, match="stop"), store.writer() as out:
        out.write(b"half")
        raise ValueError("stop")
    assert list(store.folder.iterdir()) == []
    with store.writer() as out:
        out.write(b"by")
        out.write(memoryview(b"tes"))
        assert out.commit() == hashlib.sha256(b"bytes").digest()


def test_blob_store__parts_of_a_killed_process__are_swept(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs")
    (store.folder / ".1.aa.part").write_bytes(b"half")
    BlobStore(tmp_path / "blobs")
    assert len(list(store.folder.iterdir())) == 1, "a reader touches nothing"
    BlobStore(tmp_path / "blobs", sweep=True)
    assert list(store.folder.iterdir()) == []


def test_write_atomic__mode_and_content(tmp_path: Path) -> None:
    write_atomic(tmp_path / "secret", b"x", 0o600)
    assert (tmp_path / "secret").read_bytes() == b"x"
    assert os.stat(tmp_path / "secret").st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_lock_folder__held__is_refused_in_a_sentence(tmp_path: Path) -> None:
    held = lock_folder(tmp_path)
    with pytest.raises(NotAllowedHere, match=rf"another process works in .* \(pid {os.getpid()}\)"):
        lock_folder(tmp_path)
    held.close()
    lock_folder(tmp_path).close()


def test_flusher__failed_flush_in_the_background__is_told_at_the_end_though_a_later_one_goes_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = [OSError(errno.EIO, "write-back failed"), None]

    def flush(descriptor: int) -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome

    monkeypatch.setattr(store, "sync_file", flush)
    flusher = store.Flusher()
    with (tmp_path / "file").open("wb") as file:
        flusher.wrote(file.fileno(), store.FLUSH_BYTES - 1)
        assert len(outcomes) == 2, "nothing is due yet"
        flusher.wrote(file.fileno(), 1)
        flusher.start(file.fileno())
        with pytest.raises(OSError, match="write-back"):
            flusher.finish()
    assert not outcomes
