# SPDX-License-Identifier: Apache-2.0
"""What survives a power cut: blobs named by their SHA-256, and files that are written whole.

A file is written under another name, flushed, renamed, and its folder flushed; only then does anybody hear of it.
"""

import fcntl
import hashlib
import os
import re
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from flb.errors import CorruptStore, NotAllowedHere
from flb.types import Digest


def sync_file(descriptor: int) -> None:
    """Flush a file to the medium; macOS needs its own call for that."""
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


FLUSH_BYTES = 32 << 20
"""So much may be unflushed before the medium begins to write: less is left to wait for at the end."""


class Flusher:
    """Flushes a growing file in the background, one flush at a time; one writer's."""

    def __init__(self) -> None:
        self._thread = threading.Thread()
        self._failures: list[OSError] = []
        self._unflushed = 0

    def wrote(self, descriptor: int, count: int) -> None:
        """So many bytes more; begins a flush when `FLUSH_BYTES` are due and none runs."""
        self._unflushed += count
        if self._unflushed >= FLUSH_BYTES and not self._thread.is_alive():
            self.start(descriptor)

    def start(self, descriptor: int) -> None:
        """Flush what was written so far; a flush that runs is waited for."""
        self.wait()
        self._unflushed = 0
        # a descriptor of its own: the writer may give up and close the file meanwhile
        self._thread = threading.Thread(target=self._flush, args=(os.dup(descriptor),), daemon=True)
        self._thread.start()

    def _flush(self, descriptor: int) -> None:
        try:
            sync_file(descriptor)
        except OSError as error:
            self._failures.append(error)
        finally:
            os.close(descriptor)

    def wait(self) -> None:
        """Until no flush runs."""
        if self._thread.ident is not None:
            self._thread.join()

    def finish(self) -> None:
        """As `wait`; raises the OSError of a flush that failed. The medium tells of a failure once, to that flush."""
        self.wait()
        if self._failures:
            raise self._failures[0]


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

    def link(self, part: Path, digest: Digest) -> Path:
        """As `adopt`, and `part` stays as a second name of the same bytes where the file system has such."""
        second = self.folder / f".{os.getpid()}.{os.urandom(8).hex()}.part"
        try:
            os.link(part, second)
        except FileNotFoundError:
            raise
        except OSError:
            return self.adopt(part, digest)
        path = self.adopt(second, digest)
        second.unlink(missing_ok=True)  # a rename between two names of one file does nothing
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
        self._flusher = Flusher()

    def write(self, data: bytes | memoryview) -> None:
        """Append."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        count = len(view)
        while view:
            view = view[self._file.write(view) :]
        self._flusher.wrote(self._file.fileno(), count)

    @property
    def digest(self) -> Digest:
        """SHA-256 of what is written."""
        return Digest(self._hash.digest())

    def commit(self) -> Digest:
        """Make it durable under its name."""
        self._flusher.finish()
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
