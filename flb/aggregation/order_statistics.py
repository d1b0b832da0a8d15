# SPDX-License-Identifier: Apache-2.0
"""The sum of a range of order statistics of every coordinate: what median and trimmed mean have in common.

Ring values are integers, so comparing and adding them is exact. Up to `NETWORK` updates a sorting network walks whole
blocks; beyond it every coordinate is partitioned on its own. Both give the same sums.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.aggregation.sorting_network import selection

NETWORK = 64
"""The most updates that a network takes: its length grows faster than that of a partition."""

BLOCK = 32_768
"""Elements of each update at a time: 16 updates in float32 take 2 MiB, and two threads seldom meet at the lock."""

CELLS = 1 << 20
"""The most values that are held at a time, so that memory does not grow with the cohort."""


def block_size(count: int) -> int:
    """Elements of each of `count` updates to take at a time: a multiple of 64."""
    return max(64, min(BLOCK, CELLS // max(1, count) // 64 * 64))


class RangeSum:
    """Σ of the order statistics of rank `first` to `last` - 1 (from 0) of `count` rows, with buffers that are reused.

    The caller fills `rows(size)` and calls `into`. `kind` is the rows' type: float32 holds the ring values of one
    update, float64 sums of them within 2^53, int64 all others.
    """

    def __init__(
        self, count: int, first: int, last: int, kind: type[Any] = np.float32, size: int | None = None
    ) -> None:
        self.first, self.last = first, last
        self._steps = selection(count, first, last) if count <= NETWORK else None
        held = block_size(count) if size is None else size
        self._held = np.empty((count, held), dtype=kind)
        self._spare = np.empty(held, dtype=kind)

    @property
    def size(self) -> int:
        """The most elements of a row."""
        return self._spare.size

    def rows(self, size: int) -> NDArray[Any]:
        """(count, size) to be filled."""
        return self._held[:, :size]

    def into(self, total: NDArray[Any]) -> NDArray[Any]:
        """Set `total` (float64 where all sums are within 2^53, else int64) to the sums, and return it.

        The rows are scratch and hold nothing afterwards.
        """
        rows = self._held[:, : total.size]
        kept = self._partitioned(rows) if self._steps is None else self._separated(rows)
        total.fill(0)  # and 0 + -0 is 0
        for row in kept:
            np.add(total, row, out=total, casting="unsafe")
        return total

    def _separated(self, held: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """The kept rows, by the network; rows change places by reference."""
        rows, spare = list(held), self._spare[: held.shape[1]]
        for low, high, keep_low, keep_high in self._steps or ():
            smaller, larger = rows[low], rows[high]
            if not keep_high:
                np.minimum(smaller, larger, out=smaller)
            elif not keep_low:
                np.maximum(smaller, larger, out=larger)
            else:
                np.minimum(smaller, larger, out=spare)
                np.maximum(smaller, larger, out=larger)
                rows[low], spare = spare, smaller
        return rows[self.first : self.last]

    def _partitioned(self, held: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """The kept rows, by partitioning each coordinate."""
        columns = np.ascontiguousarray(held.T)
        columns.partition((self.first, self.last - 1), axis=1)
        return list(columns.T[self.first : self.last])
