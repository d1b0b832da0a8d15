# SPDX-License-Identifier: Apache-2.0
"""The Gram matrix of updates, exact (docs/arithmetic.md 2): all that a rule which weighs whole updates may see.

Updates enter as r = round-half-even(q · 2^-t), integers of norm at most 2^26 (`flb.delta.norm_shift`). By
Cauchy-Schwarz every partial sum of every inner product is an integer of at most 2^52, so float64 matrix products are
exact in any order, in any blocks, with or without fused additions.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.delta import NORM_BITS, Float32, Float64, Int64

CELLS = 1 << 21
"""The most values that a matrix of one block holds, 16 MiB, so that memory grows only with the square of the cohort."""


def block_size(count: int) -> int:
    """Elements of each of `count` vectors to take at a time: a multiple of 64."""
    return max(64, min(32_768, CELLS // max(1, count) // 64 * 64))


def reduce_into(ring: Float32, shift: int, out: NDArray[np.float64]) -> None:
    """Write r = round-half-even(q · 2^-shift) to `out`; `ring` holds q in float32 and is scratch afterwards.

    Exact in float32: q has 24 significant bits, and so has r.
    """
    np.multiply(ring, np.float32(2.0**-shift), out=ring)
    np.rint(ring, out=ring)
    np.copyto(out, ring)


class Gram:
    """Adds up the Gram matrix of `count` vectors, block by block. The caller fills `rows(size)` and calls `add`."""

    def __init__(self, count: int, size: int | None = None) -> None:
        self.size = block_size(count) if size is None else size
        self.matrix: Float64 = np.zeros((count, count))
        self._rows = np.empty((count, self.size))
        self._product = np.empty((count, count))

    def rows(self, size: int) -> Float64:
        """(count, size) to be filled with integers."""
        return self._rows[:, :size]

    def add(self, size: int) -> None:
        """Add the inner products of the first `size` columns of `rows`."""
        rows = self._rows[:, :size]
        np.matmul(rows, rows.T, out=self._product)
        self.matrix += self._product


def within_bound(matrix: Float64) -> NDArray[np.bool_]:
    """Whether each vector's norm is at most 2^26, as admission has checked: else the sums may have been rounded."""
    bounded: NDArray[np.bool_] = np.diagonal(matrix) <= 2.0 ** (2 * NORM_BITS)
    return bounded


def squared_distances(gram: Int64) -> Int64:
    """‖xᵢ - xⱼ‖² = Gᵢᵢ + Gⱼⱼ - 2·Gᵢⱼ in exact integers of at most 2^54; a rounded Gram matrix may give -2, that is 0."""
    norms = np.diagonal(gram)
    squared: Int64 = norms[:, None] + norms[None, :] - 2 * gram
    return np.maximum(squared, 0)


def with_origin(gram: Int64) -> Int64:
    """The Gram matrix with the zero vector as one more update, last: norms are distances to it."""
    count = len(gram)
    wider: NDArray[Any] = np.zeros((count + 1, count + 1), dtype=np.int64)
    wider[:count, :count] = gram
    return wider
