# SPDX-License-Identifier: Apache-2.0
"""Updates mixed before a rule: an integer matrix M over a common denominator, so that mixing is exact.

A rule that weighs whole updates sees the distances of the mixed ones, and its weights w end as Mᵀw; a rule on
coordinates sees M·q.
"""

from typing import NamedTuple

import numpy as np

from flb.aggregation.weighing import Weighing
from flb.delta import Float64, Int64

LARGEST = 8192
"""The largest denominator: the matrix products below stay within 2^53."""

_LOW = 27


class Mixture(NamedTuple):
    """Mixed update g is Σ matrix[g, i]·xᵢ / denominator; every row adds up to the denominator."""

    matrix: Int64
    denominator: int

    def squared(self, distances: Int64) -> Float64:
        """Squared distances of the mixed updates, from those of the updates (exact integers of at most 2^54).

        ‖Σ aᵢxᵢ - Σ bᵢxᵢ‖² = aᵀDb - ½aᵀDa - ½bᵀDb for a and b of one sum. D is split into parts of 27 bits, so that its
        products with M are exact integers in float64; only the result is rounded, once for each of three steps. Distances
        from a rounded Gram matrix may come to less than 0, that is 0.
        """
        rows = self.matrix.astype(np.float64)
        high = self._spread_of(rows, (distances >> _LOW).astype(np.float64))
        low = self._spread_of(rows, (distances & ((1 << _LOW) - 1)).astype(np.float64))
        high, low = high + (low >> _LOW), low & ((1 << _LOW) - 1)
        twice: Float64 = high.astype(np.float64) * 2.0**_LOW + low.astype(np.float64)
        return np.maximum(twice, 0.0) / np.float64(2 * self.denominator * self.denominator)

    @staticmethod
    def _spread_of(rows: Float64, part: Float64) -> Int64:
        """2aᵀDb - aᵀDa - bᵀDb for all pairs of rows, in int64."""
        product = (rows @ part @ rows.T).astype(np.int64)
        own = np.diagonal(product)
        return np.asarray(2 * product - own[:, None] - own[None, :], dtype=np.int64)

    def with_origin(self) -> "Mixture":
        """The same with the zero vector as one more update, last, that mixes with nothing."""
        groups, count = self.matrix.shape
        wider = np.zeros((groups + 1, count + 1), dtype=np.int64)
        wider[:groups, :count] = self.matrix
        wider[groups, count] = self.denominator
        return Mixture(wider, self.denominator)

    def unmix(self, weighing: Weighing) -> Weighing:
        """Weights of mixed updates as weights of the updates."""
        weights = [0] * self.matrix.shape[1]
        for weight, row in zip(weighing.weights, self.matrix.tolist(), strict=True):
            if weight:
                weights = [total + weight * entry for total, entry in zip(weights, row, strict=True)]
        return Weighing(tuple(weights), weighing.denominator * self.denominator)
