# SPDX-License-Identifier: Apache-2.0
"""The files of a round, read with `pread` from any thread into the caller's buffers; mapped pages would count as memory."""

import os
from collections.abc import Sequence
from pathlib import Path

from flb.admission import ReadInto
from flb.errors import CorruptStore

KEPT_OPEN = 256
"""Files that stay open; the others are opened for each block, so that a cohort has no limit."""


class Files:
    """Open files by number."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._open: list[int] = []

    def __enter__(self) -> "Files":
        try:
            for path in self.paths:
                descriptor = _open(path)
                if len(self._open) < KEPT_OPEN:
                    self._open.append(descriptor)
                else:
                    os.close(descriptor)
        except CorruptStore:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def fill(self, index: int, offset: int, part: memoryview) -> int:
        """Read exactly `part` from file number `index`. Raises CorruptStore where the file ends before."""
        if index < len(self._open):
            read = os.preadv(self._open[index], [part], offset)
        else:
            descriptor = _open(self.paths[index])
            try:
                read = os.preadv(descriptor, [part], offset)
            finally:
                os.close(descriptor)
        if read != len(part):
            raise CorruptStore(f"{self.paths[index]} is shorter than it was", "restore the blob from another copy")
        return read

    def source(self, index: int) -> ReadInto:
        """File number `index` as a source of blocks."""
        return lambda offset, part: self.fill(index, offset, part)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CorruptStore(f"{path} cannot be read", "restore the blob from another copy") from error
