# SPDX-License-Identifier: Apache-2.0
"""Central privacy: a trusted aggregator clips every update, adds noise to their sum once, and publishes nothing else.

The unit is a node's whole update of one step; neighbours differ in that one node sends nothing, or zeros. A clipped
update has a norm of at most C, so the sum moves by at most C, and a release has μ = C/σ = 1/z. All rounds of a run
compose (docs/privacy.md).
"""

import math
from fractions import Fraction

from flb.errors import Refused
from flb.privacy.accountant import MARGIN, epsilon_of_rounds, noise_multiplier_for
from flb.privacy.adaptive_clip import BIT_UNITS, SHARE_OF_BITS, Split, split, split_with
from flb.privacy.clip import ring_norm
from flb.privacy.discrete_gaussian import LEAST_SIGMA, stages_of, standard_deviation
from flb.spec_sections import PrivacySpec, RingSpec, RunSpec

WEAK = 0.001
"""Noise multiplier without a budget. It guarantees nothing worth the name."""
TAIL = 16
"""No value of the noise is above so many deviations (`flb.privacy.discrete_gaussian`)."""


def plan(
    *, adaptive: bool, clip_norm: float, epsilon: float | None, multiplier: float | None, delta: float, steps: int,
    denominator: int, quantile: float, rate: float, bits_noise: float | None,
) -> PrivacySpec:  # fmt: skip
    """The section of a run with central privacy. `epsilon` is the budget of all `steps`; without one the noise is
    `multiplier` times the clip norm, weak where that is None. `bits_noise` None gives the bits their share of the budget.

    Raises Refused for numbers that no budget has, and for noise on the bits that alone costs the whole budget.
    """
    if multiplier is None:
        multiplier = WEAK if epsilon is None else noise_multiplier_for(epsilon, delta, steps)
    elif epsilon is not None:
        raise Refused(
            "privacy has both target_epsilon and noise_multiplier", "leave one out; each follows from the other"
        )
    if not adaptive:
        return PrivacySpec("central_fixed", clip_norm, multiplier, epsilon or 0.0, delta, denominator)
    made = split(multiplier, SHARE_OF_BITS) if bits_noise is None else split_with(multiplier, bits_noise)
    return PrivacySpec(
        "central_adaptive", clip_norm, multiplier, epsilon or 0.0, delta, denominator, quantile, rate, made.of_bits
    )


def split_of(privacy: PrivacySpec) -> Split:
    """Noise multiplier of the sum, and deviation of the noise on the bits, 0 where there are none. Raises Refused."""
    if privacy.mechanism == "central_fixed":
        return Split(privacy.noise_multiplier, 0.0)
    return split_with(privacy.noise_multiplier, privacy.bits_noise)


def sigma(privacy: PrivacySpec, ring: RingSpec, clip_norm: float) -> Fraction:
    """σ of the noise on the sum in ring units, exactly, in a round that clips to `clip_norm`."""
    return standard_deviation(split_of(privacy).of_sum, clip_norm, ring.fraction_bits)


def sigma_of(privacy: PrivacySpec, clip_norm: float) -> float:
    """The same in units of an update's values, for reports."""
    return split_of(privacy).of_sum * clip_norm


def least_clip_norm(privacy: PrivacySpec, ring: RingSpec) -> float:
    """The clip norm below which the noise would be too fine for the ring, rounded up."""
    return LEAST_SIGMA / (split_of(privacy).of_sum * 2.0**ring.fraction_bits) * (1 + 1e-9)


def mu(privacy: PrivacySpec) -> float:
    """Sensitivity over deviation of one round, its sum and its bits together."""
    return 1 / privacy.noise_multiplier


def epsilon_after(privacy: PrivacySpec, releases: int) -> float:
    """ε of so many rounds at the spec's δ, rounded up."""
    return epsilon_of_rounds(
        noise_multiplier=privacy.noise_multiplier, sampling_rate=1.0, rounds=releases, delta=privacy.delta
    )


def check(spec: RunSpec) -> None:
    """Refuse a spec whose noise is not what its budget needs, or does not fit its ring. Does nothing for other
    mechanisms. A node checks it too: the operator may have made the spec by hand."""
    privacy, ring = spec.privacy, spec.ring
    if not privacy.central:
        return
    largest = privacy.clip_norm
    if privacy.mechanism == "central_adaptive":
        largest = max(largest, float(ring.norm_bound))
    ring_norm(privacy.clip_norm, ring.fraction_bits)
    stages_of(sigma(privacy, ring, privacy.clip_norm))
    if privacy.mechanism == "central_adaptive":
        stages_of(standard_deviation(privacy.bits_noise, 1.0, BIT_UNITS))
    reach = spec.rounds.max_cohort * (ring.value_bound << ring.fraction_bits) + TAIL * sigma(privacy, ring, largest)
    if reach >= 1 << 62:
        raise Refused(
            f"the noised sum of {spec.rounds.max_cohort} updates may need more than 62 bits",
            "lower run.max_cohort, run.norm_bound or the noise",
        )
    if privacy.delta * spec.rounds.min_nodes >= 1:
        raise Refused(
            f"a delta of {privacy.delta:g} lets the guarantee fail for one node in {1 / privacy.delta:.3g}",
            f"choose a delta well below one over the nodes, of which a round has {spec.rounds.min_nodes} at least",
        )
    if privacy.epsilon:
        after = epsilon_after(privacy, spec.rounds.steps)
        if after > privacy.epsilon * (1 + MARGIN):
            raise Refused(
                f"{spec.rounds.steps} rounds with this noise come to epsilon {after:.4g}, and the run promises "
                f"{privacy.epsilon:g}",
                "make the spec with flb chain deploy",
            )


def told_epsilon(epsilon: float) -> float | None:
    """ε as a record holds it: None where it bounds nothing, since JSON has no infinity."""
    return epsilon if epsilon < math.inf else None
