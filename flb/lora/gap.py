# SPDX-License-Identifier: Apache-2.0
"""How far a round's adapter is from the ideal mean of the products BᵢAᵢ, and what the cut to its rank lost.

Both come from Gram matrices and are reported, never decided on. The gap is relative to what the ideal mean moves the
product by, ‖W* − B'A'‖ / ‖W* − BA‖ (as in FedEx-LoRA, Singhal et al., ACL 2025, arXiv 2410.09432). The lost energy is
Σ S² of the singular values that were cut over Σ S² of all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from flb.delta import Float64
from flb.lora import gram, mean_product
from flb.lora.product import Truncated


@dataclass(frozen=True, slots=True)
class Gap:
    """Squares of Frobenius norms, added up over modules: `missed` ‖W* − B'A'‖², `moved` ‖W* − BA‖², `lost` what the cut
    lost of `whole`."""

    missed: float = 0.0
    moved: float = 0.0
    lost: float = 0.0
    whole: float = 0.0

    def __add__(self, other: "Gap") -> "Gap":
        """Of two modules together."""
        return Gap(
            self.missed + other.missed, self.moved + other.moved, self.lost + other.lost, self.whole + other.whole
        )

    @property
    def relative(self) -> float:
        """‖W* − B'A'‖ / ‖W* − BA‖; 0 where nothing moved."""
        return math.sqrt(self.missed / self.moved) if self.moved else 0.0

    @property
    def lost_energy(self) -> float:
        """The share of Σ S² that was cut, 0 to 1."""
        return self.lost / self.whole if self.whole else 0.0

    @property
    def figures(self) -> dict[str, float]:
        """For reports, to four significant digits; none of an adapter that has left the finite numbers."""
        if not all(map(math.isfinite, (self.missed, self.moved, self.lost, self.whole))):
            return {}
        return {"gap": float(f"{self.relative:.4g}"), "lost_energy": float(f"{self.lost_energy:.4g}")}


def of_product(taken: Sequence[Float64], r: int, left: Float64, right: Float64, cut: Truncated) -> Gap:
    """Of one module in mode product: all that is missing is what the cut lost. Gram matrices as in `mean_product`."""
    moved = gram.square(mean_product.move(taken, r), left, right)
    return Gap(cut.tail, moved, cut.tail, cut.whole)


def of_factors(taken: Sequence[Float64], r: int, left: Float64, right: Float64, cut: Truncated | None = None) -> Gap:
    """Of one module whose factors are averaged each on its own; `cut` is the residual that goes with them, if any."""
    moved = gram.square(mean_product.move(taken, r), left, right)
    if cut is not None:
        return Gap(cut.tail, moved, cut.tail, cut.whole)
    return Gap(gram.square(mean_product.residual(taken, r), left, right), moved)
