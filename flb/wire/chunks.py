# SPDX-License-Identifier: Apache-2.0
"""Resumable transfer without I/O: the sender cuts, the receiver checks order, size and digest.

The committed offset is the only thing that both sides share. After a break the receiver says how much it holds, the
sender goes on from there; the digest covers the whole. Upload and download use the same two halves.
"""

import hashlib
from collections.abc import Callable, Iterator

from flb.errors import BadMessage, DigestMismatch, TooLarge, Truncated
from flb.types import Digest

CHUNK = 1 << 20
"""Largest chunk in bytes."""


def send(read: Callable[[int, int], bytes], size: int, offset: int) -> Iterator[bytes]:
    """Chunks of a blob of `size` bytes from `offset` on; `read(offset, count)` gives exactly `count` bytes."""
    while offset < size:
        count = min(CHUNK, size - offset)
        yield read(offset, count)
        offset += count


class Receiver:
    """Follows one transfer of `size` bytes named `digest`; the caller writes what `take` has checked.

    After a break, make a new one and feed `resume` with the bytes that are already held.
    """

    __slots__ = ("_hash", "digest", "held", "size")

    def __init__(self, digest: Digest, size: int) -> None:
        self.digest, self.size, self.held = digest, size, 0
        self._hash = hashlib.sha256()

    def resume(self, held: bytes | memoryview) -> None:
        """Count bytes that arrived before the break."""
        self._hash.update(held)
        self.held += len(held)

    def take(self, data: bytes | memoryview) -> None:
        """Check and count the next chunk. Raises BadMessage or TooLarge; then nothing of it counts."""
        if not data or len(data) > CHUNK:
            raise BadMessage(f"a chunk has {len(data)} bytes", f"send 1 to {CHUNK} bytes a chunk")
        if self.held + len(data) > self.size:
            raise TooLarge(f"more than the {self.size} bytes that were announced arrived", "send what was announced")
        self._hash.update(data)
        self.held += len(data)

    def finish(self) -> None:
        """Raise Truncated if bytes are missing, DigestMismatch if they are not those that were named."""
        if self.held < self.size:
            raise Truncated(
                f"the stream ended at byte {self.held} of {self.size}", "ask for the committed offset and go on there"
            )
        if self._hash.digest() != self.digest:
            raise DigestMismatch("the bytes do not have the digest that was named", "transfer them again")
