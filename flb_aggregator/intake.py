# SPDX-License-Identifier: Apache-2.0
"""From a stream to a checked blob: spool, digest, admission. Blocking; the service calls it in threads.

The spool holds one file for each (round, node), named by round, seed, node and the digest that was announced, so a
restart finds the committed offset in the file's size. A refused update leaves no byte behind.
"""

import contextlib
import os
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from flb.admission import check_update
from flb.errors import Busy, Fatal, FLBError, Truncated, Unavailable, WrongRound
from flb.rounds import Name
from flb.spec import RunSpec
from flb.store import BlobStore, Flusher
from flb.types import Address, Digest, Manifest, Step
from flb.wire.chunks import Receiver

FULL_SECONDS = 5.0
"""When to come back to a full disk."""


@dataclass(frozen=True, slots=True)
class Spool:
    """The folder of unfinished uploads; on the file system of the blobs, so that a finished one is renamed."""

    folder: Path
    blobs: BlobStore
    reserve: int = 64 << 20
    """Bytes of the disk that stay free for adapter, record and journal of the round."""
    streams: "WeakValueDictionary[str, Upload]" = field(default_factory=WeakValueDictionary)
    """The newest stream of each (round, node) that is still held."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Guards `streams`."""

    def check_room(self, manifest: Manifest) -> None:
        """Raise Busy, before the first byte, where the disk would not hold the update."""
        free = shutil.disk_usage(self.folder).free
        held, digest = self.committed((manifest.round, manifest.seed), manifest.node)
        missing = manifest.size - (held if digest == manifest.digest else 0)
        with self.lock:
            coming = sum(s.missing() for s in self.streams.values() if s.manifest.node != manifest.node)
        if free < missing + coming + self.reserve:
            raise Busy("the aggregator's disk is full", "its operator has to free space; come back later", FULL_SECONDS)

    def path(self, manifest: Manifest) -> Path:
        """The file of one upload."""
        return self.folder / f"{_stem((manifest.round, manifest.seed), manifest.node)}-{manifest.digest.hex()}"

    def committed(self, name: Name, node: Address) -> tuple[int, bytes]:
        """Bytes that are held for (round, node), and the digest they belong to; (0, empty) for none."""
        for path in self.folder.glob(f"{_stem(name, node)}-*"):
            with contextlib.suppress(FileNotFoundError):  # another stream of the node ended since it was listed
                return path.stat().st_size, bytes.fromhex(path.name.rsplit("-", 1)[1])
        return 0, b""

    def replace(self, upload: "Upload") -> "Upload | None":
        """Make this the newest stream of its node; returns the one before, which the caller closes."""
        stem = _stem((upload.manifest.round, upload.manifest.seed), upload.manifest.node)
        with self.lock:
            older = self.streams.get(stem)
            self.streams[stem] = upload
        return older

    def clear(self, keep: Name | None) -> None:
        """Delete what belongs to other openings."""
        prefix = f"{keep[0]}-{keep[1].hex()[:16]}-" if keep else None
        for path in self.folder.iterdir():
            if prefix is None or not path.name.startswith(prefix):
                path.unlink(missing_ok=True)


def _stem(name: Name, node: Address) -> str:
    return f"{name[0]}-{name[1].hex()[:16]}-{node.hex()}"


class Upload:
    """One stream into the spool. A newer stream of the same node closes this one; both never write at once."""

    def __init__(self, spool: Spool, manifest: Manifest, offset: int) -> None:
        """Raises Truncated for an offset that is not what is held."""
        self.spool, self.manifest = spool, manifest
        self.check_seconds = self.flush_seconds = 0.0
        """What the checks took, and what was left of the flush beside them when they were done."""
        self.path = spool.path(manifest)
        self.receiver = Receiver(manifest.digest, manifest.size)
        self._lock, self._closed = threading.Lock(), True
        with self._lock:  # a stream that is newer still waits until this one is open, and then closes it
            older = spool.replace(self)
            if older is not None:
                older.close()
            self._open(offset)

    def _open(self, offset: int) -> None:
        """Go on in the file that is held, or begin it."""
        spool, manifest = self.spool, self.manifest
        held, digest = spool.committed((manifest.round, manifest.seed), manifest.node)
        if offset == 0 or digest != manifest.digest:
            for old in spool.folder.glob(f"{_stem((manifest.round, manifest.seed), manifest.node)}-*"):
                old.unlink(missing_ok=True)  # as above
            held = 0
        if offset != held:
            raise Truncated(f"the stream goes on at byte {offset}, {held} are held", "ask for the committed offset")
        self._file = self.path.open("ab+", buffering=0)
        self._flusher = Flusher()
        self._file.seek(0)
        block = memoryview(bytearray(1 << 20))
        while count := self._file.readinto(block):
            self.receiver.resume(block[:count])
        self._closed = False

    def write(self, data: bytes | memoryview) -> None:
        """Check, count and append one chunk."""
        with self._lock:
            if self._closed:
                raise WrongRound("this stream was replaced by a newer one, or its round is over", "ask again")
            self.receiver.take(data)
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
            self._flusher.wrote(self._file.fileno(), len(data))

    def missing(self) -> int:
        """Bytes that are still to come, 0 for a stream that is over."""
        return 0 if self._closed else self.manifest.size - self.receiver.held

    def close(self, discard: bool = False) -> None:
        """Stop writing; what was held stays for a resume unless `discard`.

        Once closed, the file is the newer stream's, if there is one: then nothing is discarded.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._flusher.wait()
            self._file.close()
            if discard:
                self.path.unlink(missing_ok=True)

    def finish(self, spec: RunSpec, step: Step) -> float:
        """Digest, admission checks, fsync, rename into the blobs; returns the update's norm. Raises a PeerFault."""
        with self._lock:
            if self._closed:
                raise WrongRound("this stream was replaced by a newer one, or its round is over", "ask again")
            self.receiver.finish()
            descriptor = self._file.fileno()
            self._flusher.finish()
            self._check_file(descriptor)
            started = time.monotonic()
            self._flusher.start(descriptor)
            norm = check_update(lambda offset, part: os.preadv(descriptor, [part], offset), self.manifest, spec, step)
            checked = time.monotonic()
            self._flusher.finish()
            self.check_seconds, self.flush_seconds = checked - started, time.monotonic() - checked
            self._file.close()
            self._closed = True
            try:
                self.spool.blobs.link(self.path, Digest(self.manifest.digest))
            except FileNotFoundError as error:  # the spool was cleared for the next opening
                raise WrongRound("the round ended while the update was checked", "follow the open round") from error
            return norm

    def _check_file(self, descriptor: int) -> None:
        """The file that was checked is the one that gets the name, and nobody else wrote into it."""
        mine, there = os.fstat(descriptor), None
        with contextlib.suppress(FileNotFoundError):
            there = self.path.stat()
        if there is None or there.st_ino != mine.st_ino or mine.st_size != self.manifest.size:
            raise WrongRound("the spooled file is not this stream's any more", "ask for the committed offset")


def keeps_bytes(error: FLBError) -> bool:
    """Whether the bytes of a failed upload stay for a resume: only a cut, a limit or our own fault keeps them."""
    return isinstance(error, Truncated | Fatal | Unavailable | WrongRound)
