# SPDX-License-Identifier: Apache-2.0
"""Which of many keys occur more than once, in flat memory: digests go to temporary files and are sorted part by part.

A set in memory would need some hundred bytes a record. Keys are compared by 128 bits of BLAKE2b, so that a false
duplicate among a thousand million records has a chance below 10^-20.
"""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import IO, Self

import numpy as np

BUCKETS = 64
BUFFERED = 4096
"""Entries of a bucket in memory before they are written."""
ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("tag", "<u8"), ("mark", "<u8")])


class Duplicates:
    """Takes keys, each with a mark, a number from 0 to 2^64 - 1, and says which marks share a key. A tag is bytes that
    tell apart what has the same key; 64 bits of its digest are kept."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._files: list[IO[bytes]] = []
        for _ in range(BUCKETS):
            file = tempfile.TemporaryFile()  # noqa: SIM115  (the stack closes it)
            self._files.append(self._open.enter_context(file))
        self._waiting = [bytearray() for _ in range(BUCKETS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def add(self, key: bytes, tag: bytes, mark: int) -> None:
        """One more key."""
        digest = hashlib.blake2b(key, digest_size=16).digest()
        bucket = digest[0] % BUCKETS
        waiting = self._waiting[bucket]
        waiting += digest + hashlib.blake2b(tag, digest_size=8).digest() + mark.to_bytes(8, "little")
        if len(waiting) >= BUFFERED * ENTRY.itemsize:
            self._files[bucket].write(waiting)
            waiting.clear()

    def groups(self) -> Iterator[list[tuple[int, int]]]:
        """(tag's digest, mark) of each key that occurs more than once, by rising mark; the groups in no order."""
        for file, waiting in zip(self._files, self._waiting, strict=True):
            file.seek(0)
            entries = np.frombuffer(file.read() + waiting, ENTRY)
            same = _repeats(entries := entries[np.lexsort((entries["mark"], entries["low"], entries["high"]))])
            edges = np.diff(np.concatenate(([0], same.astype(np.int8), [0])))
            for begin, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
                group = entries[begin : end + 1]
                yield list(zip(group["tag"].tolist(), group["mark"].tolist(), strict=True))


def _repeats(entries: np.ndarray[tuple[int], np.dtype[np.void]]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each entry but the first has the key of the one before."""
    high, low = entries["high"], entries["low"]
    return np.asarray((high[1:] == high[:-1]) & (low[1:] == low[:-1]))
