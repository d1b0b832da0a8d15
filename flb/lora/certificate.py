# SPDX-License-Identifier: Apache-2.0
"""Whether factors that somebody published are the best product of their rank, without comparing bits.

With T = ‖W*‖², S its singular values and E² = ‖W* − B'A'‖², all from Gram matrices, (B', A') is accepted if
E² ≤ (1 + 1e-4)·(T − Σ_{j≤m} S_j²) + 1e-10·T. The product alone would leave the basis free, and huge factors that cancel
could hide an error in rounding. So the factors must be balanced too: ‖B'‖² and ‖A'‖² are at most Σ S, which no other
pair with this product goes below; and they are in the order of S, or where the run aligns its adapters in the basis nearest
to the adapter before.
"""

from dataclasses import dataclass

import numpy as np

from flb.delta import Float64
from flb.lora import gram, product

TAIL_TOLERANCE, WHOLE_TOLERANCE = 1e-4, 1e-10
BALANCE_TOLERANCE = 1e-3
"""Of Σ S, for the square norm of a factor or of one direction of it."""
BASIS_TOLERANCE = 1e-6
"""Of Σ σ(M) in `_nearest`; a turn by θ costs about θ²/2 of it."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """One module's. `error` is E², `whole` T, `tail` what the best product of that rank misses; `balanced` whether the
    factors are as small, and in the order, that the mode says."""

    error: float
    whole: float
    tail: float
    balanced: bool

    @property
    def accepted(self) -> bool:
        """Whether the published factors stand; NaN does not."""
        return self.balanced and self.error <= (1 + TAIL_TOLERANCE) * self.tail + WHOLE_TOLERANCE * self.whole


def check(
    coefficients: Float64,
    left: Float64,
    right: Float64,
    r: int,
    energy: float = 1.0,
    spare: Float64 | None = None,
    ordered: bool = True,
) -> Certificate:
    """Check the last `r` directions of a stack, the published factors, against W* = L·C·R over the others.

    `left` and `right` are the Gram matrices of [L B'] and [R; A']. `spare` has for each direction the square norm of A
    in adapter 0, which directions beyond the rank may hold; none where they hold zeros. `ordered` asks for the order
    of singular values, otherwise for the basis nearest to the first `r` directions, those of the adapter before.
    """
    inner = coefficients.shape[0]
    own, published = slice(0, inner), slice(inner, inner + r)
    cut = product.truncate(coefficients, left[own, own], right[own, own], r, energy)
    difference = np.zeros((inner + r, inner + r))
    difference[own, own] = coefficients
    last = np.arange(inner, inner + r)
    difference[last, last] = -1.0
    b, a = np.diagonal(left[published, published]), np.diagonal(right[published, published])
    wanted = np.zeros(r)
    wanted[: cut.rank] = cut.values[: cut.rank]
    idle = b == 0.0 if ordered else np.arange(r) >= cut.rank
    unused = np.zeros(r) if spare is None else np.where(idle, spare, 0.0)
    return Certificate(
        error=gram.square(difference, left, right),
        whole=gram.square(coefficients, left[own, own], right[own, own]),
        tail=cut.tail,
        balanced=_balanced(b, wanted, ordered)
        and _balanced(a, np.where(idle, unused, wanted), ordered)
        and (ordered or _nearest(left[published, :r] + right[published, :r])),
    )


def _nearest(cross: Float64) -> bool:
    """Whether no turn brings B', A' nearer to B, A: M = B'ᵀB + A'Aᵀ has tr M = Σ σ(M) then, and less in any other basis
    (`flb.lora.procrustes`)."""
    if not np.isfinite(cross).all():
        return False
    most = float(np.linalg.svd(cross, compute_uv=False).sum())
    return float(np.trace(cross)) >= (1.0 - BASIS_TOLERANCE) * most


def _balanced(squares: Float64, wanted: Float64, ordered: bool) -> bool:
    """Whether the square norms of directions are what they should be, each of them or in all."""
    room = BALANCE_TOLERANCE * float(wanted.sum())
    if ordered:
        return bool((np.abs(squares - wanted) <= room).all())
    return abs(float(squares.sum()) - float(wanted.sum())) <= room
