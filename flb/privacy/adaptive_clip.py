# SPDX-License-Identifier: Apache-2.0
"""Adaptive clipping: the clip norm follows a quantile of the update norms (Andrew et al., arXiv 1905.03871).

Each node adds one bit, b = 1 where its update was NOT clipped. Of the noised share b̃ of such updates follows

    C' = C · exp(-η · (b̃ - γ))

so that C grows while more than 1 - γ of the updates are clipped, and shrinks while fewer are. The bits cost privacy too:
their noise and that of the sum together cost what one Gaussian of multiplier z costs, z_Δ^-2 + (2σ_b)^-2 = z^-2.

The paper's σ_b = m/20 makes no such split for small cohorts. Here the bits get a fixed share of the budget instead, and
a split that is asked for is checked.
"""

import math
from dataclasses import dataclass

from flb.errors import Refused

SHARE_OF_BITS = 0.05
"""Of the budget (of μ²) the bits get so much: the sum's noise grows by 2.6 %."""
BIT_UNITS = 30
"""The sum of bits is counted in units of 2^-30 of (b - 1/2), and its noise is an integer in them."""
LARGEST_MOVE = 20.0
"""ln C moves at most so far in one round, whatever the noise: e^20 is beyond every norm."""


@dataclass(frozen=True, slots=True)
class Split:
    """Noise multiplier of the sum of updates, and deviation of the noise on the sum of bits, as the paper has them."""

    of_sum: float
    of_bits: float


def split(noise_multiplier: float, share: float = SHARE_OF_BITS) -> Split:
    """The split in which the bits get `share` of the budget: σ_b = z / 2√share, feasible for every cohort.

    Raises Refused for a share outside 0 to 1, and a multiplier that is no number above 0.
    """
    if not 0 < share < 1 or not 0 < noise_multiplier < math.inf:
        raise Refused(
            f"noise multiplier {noise_multiplier} with a share of {share} for the bits",
            "choose a multiplier above 0, and a share between 0 and 1",
        )
    return Split(noise_multiplier / math.sqrt(1 - share), noise_multiplier / (2 * math.sqrt(share)))


def split_with(noise_multiplier: float, of_bits: float) -> Split:
    """The split for given noise on the bits. Raises Refused where they alone would cost the whole budget, z ≥ 2σ_b."""
    if not 0 < noise_multiplier < 2 * of_bits < math.inf:
        raise Refused(
            f"noise of {of_bits:g} on the clipped bits costs more than the whole budget of multiplier {noise_multiplier:g}",
            f"choose more than {noise_multiplier / 2:g}, or leave it out",
        )
    return Split((noise_multiplier**-2 - (2 * of_bits) ** -2) ** -0.5, of_bits)


def share_within(unclipped: int, cohort: int, noise: int, denominator: int | None = None) -> float:
    """b̃, the noised share of updates that were not clipped: Σ(b - 1/2)/m + 1/2, with integer noise in `BIT_UNITS`.

    The sum is over the `cohort` updates that came, so that one that is left out moves it by 1/2; `denominator` is m, fixed
    beforehand, and the cohort where it is None. Noise may bring the share below 0 or above 1. Raises Refused for an empty
    cohort.
    """
    fixed = cohort if denominator is None else denominator
    if min(cohort, fixed) < 1 or not 0 <= unclipped <= cohort:
        raise Refused(f"{unclipped} of {cohort} updates were not clipped", "report this as a defect")
    halves = ((2 * unclipped - cohort) << (BIT_UNITS - 1)) + noise
    return halves / (fixed << BIT_UNITS) + 0.5


def next_norm(norm: float, share: float, quantile: float = 0.5, rate: float = 0.2) -> float:
    """C of the next round from C of this one and the noised share of updates within it.

    The exponential is evaluated once, by the aggregator; the record carries its result. Raises Refused for a quantile
    outside 0 to 1, a rate or a norm that is no number above 0.
    """
    if not 0 < quantile < 1 or not 0 < rate < math.inf or not 0 < norm < math.inf:
        raise Refused(
            f"clip norm {norm}, quantile {quantile}, rate {rate}",
            "choose a quantile between 0 and 1, the others above 0",
        )
    return norm * math.exp(max(-LARGEST_MOVE, min(LARGEST_MOVE, -rate * (share - quantile))))
