# SPDX-License-Identifier: Apache-2.0
"""Mode `product` (FlexLoRA, Bai et al., NeurIPS 2024, arXiv 2402.11505; FLoRIST, arXiv 2506.09199): the mean of the
products BᵢAᵢ, cut to the best rank r.

With LᵀL = K_B·K_Bᵀ and RRᵀ = K_A·K_Aᵀ the singular values of L·C·R are those of the small K_Bᵀ·C·K_A = U·S·Vᵀ, and
B' = L·(C·K_A·V)/√S, A' = (K_B·U)ᵀ·C·R/√S. Nothing of shape (d, k) is formed. Both factors are balanced
(B'ᵀB' = A'A'ᵀ = S) and in the order of S, so a node of lower rank takes the first directions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flb.capabilities import ModeCapabilities
from flb.delta import Float32, Float64
from flb.errors import Fatal
from flb.lora import gram
from flb.types import Step, TensorSpec

CAPABILITIES = ModeCapabilities(
    linear=False, both_factors=True, exact=True, bit_exact=False, ranks_differ=True, turns=True
)
FLOOR = 1e-14
"""Eigenvalues of a Gram matrix below this share of the largest are rounding, no direction."""
PIVOT = 1e-7
"""A smaller pivot of the Cholesky factor may be rounding alone: the eigenvalues decide then."""
ZERO = 2.0**-24
"""A singular value below this share of the largest is lost in the float32 of the others."""
TIE = 1e-6
"""Singular values nearer than this share of the largest have no vectors of their own: they stay together."""


def sent(tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """Everything, in every step."""
    return tensors


@dataclass(frozen=True, slots=True)
class Truncated:
    """The best product of rank m as combinations of a stack: B' = L·`left` with `left` (R, m), A' = `right`·R with
    `right` (m, R); `values` are all singular values, largest first."""

    left: Float64
    right: Float64
    values: Float64

    @property
    def rank(self) -> int:
        """m, the directions that are kept."""
        return int(self.left.shape[1])

    @property
    def tail(self) -> float:
        """‖W − B'A'‖² of the best product of that rank: the squares of the values that are not kept."""
        return _squares(self.values[self.rank :])

    @property
    def whole(self) -> float:
        """‖W‖²."""
        return _squares(self.values)


def truncate(coefficients: Float64, left: Float64, right: Float64, rank: int, energy: float = 1.0) -> Truncated:
    """The best product of at most `rank` directions for W = L·C·R, from C and the Gram matrices LᵀL and RRᵀ.

    With `energy` below 1 it is the smallest rank whose squared singular values hold that share. Raises Fatal where the
    stack is not finite.
    """
    root_left, root_right = _root(left), _root(right)
    small = root_left.T @ coefficients @ root_right
    u, values, vt = np.linalg.svd(small, full_matrices=False)
    m = kept(values, rank, energy)
    scale = np.sqrt(values[:m])
    return Truncated(
        coefficients @ (root_right @ vt[:m].T) / scale, (root_left @ u[:, :m] / scale).T @ coefficients, values
    )


def kept(values: Float64, rank: int, energy: float) -> int:
    """How many singular values (largest first) stay: at most `rank`, none that is zero, and with `energy` below 1 the
    fewest that hold that share of the squares, together with those that tie with the last of them."""
    if values.size == 0 or values[0] == 0.0:
        return 0
    live = min(rank, int(np.count_nonzero(values > ZERO * values[0])))
    if energy >= 1.0:
        return live
    wanted, held, count = energy * _squares(values), 0.0, 0
    while count < live and held < wanted:
        held += float(values[count]) * float(values[count])
        count += 1
    while 0 < count < live and values[count - 1] - values[count] < TIE * values[0]:
        count += 1
    return count


def factors(
    left: Sequence[Float32 | Float64],
    right: Sequence[Float32 | Float64],
    cut: Truncated,
    r: int,
    spare: Callable[[], Float32 | Float64],
) -> tuple[Float64, Float64]:
    """B' (d, r) and A' (r, k) from a stack's parts and its `truncate`; `spare` gives A of adapter 0, shape (r, k), and is
    asked where directions are left over.

    The largest entry of each column of B' is positive. Directions beyond the kept ones get B = 0 and their rows of
    `spare`: the product is the same, and their gradient is not zero.
    """
    m = cut.rank
    b, a = np.zeros((left[0].shape[0], r)), np.empty((r, right[0].shape[1]))
    if m < r:
        a[m:] = spare()[m:]
    if m:
        b[:, :m] = gram.times_columns(left, cut.left)
        a[:m] = gram.times_rows(cut.right, right)
        signs = np.where(b[np.abs(b[:, :m]).argmax(axis=0), np.arange(m)] < 0, -1.0, 1.0)
        b[:, :m] *= signs
        a[:m] *= signs[:, np.newaxis]
    return b, a


def _squares(values: Float64) -> float:
    """Σ v², smallest first."""
    total = 0.0
    for value in values[::-1].tolist():
        total += value * value
    return total


def _root(matrix: Float64) -> Float64:
    """K with K·Kᵀ = `matrix`, a Gram matrix: Cholesky, or eigenvectors where it has no full rank.

    Scaled to a diagonal of ones first, so that nodes whose factors differ by powers of ten weigh alike.
    """
    diagonal = np.diagonal(matrix)
    if not np.isfinite(matrix).all():
        raise Fatal("the adapter's factors hold NaN or infinity", "lower server_optimizer.learning_rate")
    live = np.flatnonzero(diagonal > 0.0)
    scale = np.sqrt(diagonal[live])
    unit = matrix[np.ix_(live, live)] / scale / scale[:, np.newaxis]
    root = np.zeros((matrix.shape[0], live.size))
    try:
        lower = np.linalg.cholesky(unit)
        if live.size and np.diagonal(lower).min() < PIVOT:
            raise np.linalg.LinAlgError
        root[live] = lower
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(unit)
        values[values < FLOOR * values[-1]] = 0.0
        root[live] = vectors * np.sqrt(values)
    root[live] *= scale[:, np.newaxis]
    return root
