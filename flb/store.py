# SPDX-License-Identifier: Apache-2.0
"""What survives a power cut: blobs named by their SHA-256, and the aggregator's journal.

A file is written under another name, flushed, renamed, and its folder flushed; only then does anybody hear of it. The
journal is SQLite in WAL mode with `synchronous=FULL`: with NORMAL a power cut can lose a receipt that was given.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from flb.errors import CorruptStore, NotAllowedHere
from flb.records import (
    Roll,
    admitted_from_json,
    admitted_to_json,
    closing_from_json,
    closing_to_json,
)
from flb.rounds import Fact, IntakeClosed, Name, PeerUpdateAdmitted, PeerUploadBegun, StepCombined
from flb.types import Address, Block, Digest, Round


def sync_file(descriptor: int) -> None:
    """Flush a file to the medium; macOS needs its own call for that."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


FLUSH_BYTES = 32 << 20
"""So much may be unflushed before the medium begins to write: less is left to wait for at the end."""


def _flush(descriptor: int) -> None:
    """In the background, for speed alone: whether it succeeds is seen by the flush at the end."""
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file: after it returns the file is complete and durable, before it was absent or the old one."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(data)
        sync_file(descriptor)
    finally:
        os.close(descriptor)
    part.rename(path)
    sync_folder(path.parent)


def digest_of_file(path: Path, buffer: int = 1 << 20) -> Digest:
    """SHA-256 of a file, read in blocks."""
    with path.open("rb", buffering=0) as file:
        hashed = hashlib.sha256()
        block = memoryview(bytearray(buffer))
        while count := file.readinto(block):
            hashed.update(block[:count])
        return Digest(hashed.digest())


NAME = re.compile("[0-9a-f]{64}")
"""A blob's; everything else in the folder is on its way to become one."""


class BlobStore:
    """A folder of blobs named by their SHA-256 in hex, written once."""

    def __init__(self, folder: Path, sweep: bool = False) -> None:
        """`sweep` deletes what a killed process left half written: only for the one process that writes here."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for part in folder.glob(".*.part") if sweep else ():
            part.unlink()

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        return self.folder / digest.hex()

    def has(self, digest: Digest) -> bool:
        """Whether the blob is here."""
        return self.path(digest).is_file()

    def put(self, data: bytes) -> Digest:
        """Store bytes; returns their digest. Storing twice is harmless."""
        digest = Digest(hashlib.sha256(data).digest())
        if not self.has(digest):
            write_atomic(self.path(digest), data)
        return digest

    def get(self, digest: Digest) -> bytes:
        """The bytes of a small blob. Raises CorruptStore where it is missing or altered."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise CorruptStore(f"blob {digest.hex()} cannot be read from {self.folder}", "restore it") from error
        if hashlib.sha256(data).digest() != digest:
            raise CorruptStore(f"blob {digest.hex()} in {self.folder} was altered", "restore it from another copy")
        return data

    def adopt(self, part: Path, digest: Digest) -> Path:
        """Make a complete, checked and flushed file of the same file system a blob."""
        path = self.path(digest)
        os.utime(part)  # it is new here, however old its bytes are
        part.rename(path)
        sync_folder(self.folder)
        return path

    def delete_others(self, needed: Set[Digest], before: float) -> int:
        """Delete blobs that are not `needed` and were stored before a time (Unix seconds); returns how many."""
        deleted = 0
        for path in self.folder.iterdir():
            if not NAME.fullmatch(path.name) or Digest(bytes.fromhex(path.name)) in needed:
                continue
            if path.stat().st_mtime < before:
                path.unlink()
                deleted += 1
        return deleted

    @contextmanager
    def writer(self) -> Iterator["BlobWriter"]:
        """Write a blob piece by piece; nothing stays behind unless `commit` was called."""
        part = self.folder / f".{os.getpid()}.{os.urandom(8).hex()}.part"
        with part.open("wb", buffering=0) as file:
            try:
                yield BlobWriter(self, part, file)
            finally:
                part.unlink(missing_ok=True)


class BlobWriter:
    """A blob in the making; the digest runs along, and of a large one the medium holds most before the end."""

    def __init__(self, store: BlobStore, part: Path, file: IO[bytes]) -> None:
        self._store, self._part, self._file = store, part, file
        self._hash = hashlib.sha256()
        self._unflushed = 0
        self._flusher = threading.Thread()

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._unflushed += len(view)
        while view:
            view = view[self._file.write(view) :]
        if self._unflushed >= FLUSH_BYTES and not self._flusher.is_alive():
            self._unflushed = 0
            # a descriptor of its own: the writer may give up and close the file meanwhile
            self._flusher = threading.Thread(target=_flush, args=(os.dup(self._file.fileno()),), daemon=True)
            self._flusher.start()

    @property
    def digest(self) -> Digest:
        """SHA-256 of what is written."""
        return Digest(self._hash.digest())

    def commit(self) -> Digest:
        """Make it durable under its name."""
        sync_file(self._file.fileno())
        self._store.adopt(self._part, self.digest)
        return self.digest


def lock_folder(folder: Path) -> IO[str]:
    """Hold a work folder for this process; the lock goes with the process. Raises NotAllowedHere if it is held."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read(20).strip()
        file.close()
        raise NotAllowedHere(
            f"another process works in {folder}" + (f" (pid {holder})" if holder.isdigit() else ""),
            "stop it, or give this one a work folder of its own",
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


class Journal:
    """The facts that the chain does not hold, in their order. One process writes."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA fullfsync=ON")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, seed BLOB NOT NULL,"
                " kind TEXT NOT NULL, body TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            raise CorruptStore(f"the journal {path} cannot be opened ({error})", "restore it from a copy") from error

    def append(self, *facts: Fact) -> None:
        """Write facts down in one transaction: durable when this returns, none of them if it raises.

        Raises OSError (ENOSPC) where the disk is full.
        """
        rows = [(*fact.name, type(fact).__name__, json.dumps(_body(fact))) for fact in facts]
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT INTO facts (round, seed, kind, body) VALUES (?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise OSError(errno.ENOSPC, "the journal has no room") from error
            raise

    def forget(self, before: Round) -> None:
        """Delete the facts of earlier rounds, which nothing reads any more."""
        self._db.execute("DELETE FROM facts WHERE round < ?", (before,))

    def facts(self) -> Iterator[Fact]:
        """All facts in order. Raises CorruptStore."""
        try:
            for number, seed, kind, body in self._db.execute("SELECT round, seed, kind, body FROM facts ORDER BY id"):
                yield _fact((Round(number), Digest(seed)), kind, json.loads(body))
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise CorruptStore("the journal cannot be read", "restore it from a copy") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_ROLL_DIGESTS = ("record_digest", "adapter_digest", "updates_root", "scores_root", "payout_root")


def _body(fact: Fact) -> dict[str, Any]:
    match fact:
        case PeerUploadBegun():
            return {"node": fact.node.hex()}
        case PeerUpdateAdmitted():
            return admitted_to_json(fact.admitted)
        case IntakeClosed():
            return closing_to_json(fact.closing)
        case StepCombined():
            digests = {name: getattr(fact.roll, name).hex() for name in _ROLL_DIGESTS}
            block = {"number": fact.opened_at.number, "hash": fact.opened_at.hash.hex()}
            return {"accepted": fact.roll.accepted, "weight_sum": fact.roll.weight_sum, "opened_at": block, **digests}


def _fact(name: Name, kind: str, body: Any) -> Fact:
    match kind:
        case "PeerUploadBegun":
            return PeerUploadBegun(name, Address(bytes.fromhex(body["node"])))
        case "PeerUpdateAdmitted":
            return PeerUpdateAdmitted(name, admitted_from_json(body))
        case "IntakeClosed":
            return IntakeClosed(name, closing_from_json(body))
        case "StepCombined":
            digests = {key: Digest(bytes.fromhex(body[key])) for key in _ROLL_DIGESTS}
            roll = Roll(round=name[0], accepted=body["accepted"], weight_sum=body["weight_sum"], **digests)
            block = Block(int(body["opened_at"]["number"]), Digest(bytes.fromhex(body["opened_at"]["hash"])))
            return StepCombined(name, roll, block)
    raise ValueError(kind)
