# SPDX-License-Identifier: Apache-2.0
"""The proof that no sum of a round passes 63 bits (docs/arithmetic.md 1), for every rule's own denominator.

Values are at most value_bound · 2^F, so a sum Σ w·q is at most that times Σ |w|. For a cohort of n that is n times the cap
for a mean by examples; n for equal weights, for order statistics and for rules that select; 2^20 + n for rules that weigh
whole updates by round(c · 2^20) where the coefficients c add up to 1 at most. A mixing is an integer matrix in front whose
rows add up to its denominator: n at most for neighbours, s · (s - 1) for buckets of s and a last one of fewer.
"""

from flb.aggregation.weighing import COEFFICIENT_BITS
from flb.legality.choices import Choices

HEADROOM = 1 << 63
"""Sums stay below it."""
COHORTS = 1 << 32
"""No cohort is larger."""


def weight_total(c: Choices, nodes: int, cap: int | None = None) -> int:
    """Largest Σ |w| over `nodes` updates; `cap` overrides the spec's weight cap."""
    counted = nodes * ((cap or c.spec.ring.weight_cap) if c.spec.aggregation.weights == "examples" else 1)
    if c.rule.weighs and not c.rule.selects:
        counted = max(counted, (1 << COEFFICIENT_BITS) + nodes)
    return counted * (mixed_total(c, nodes) if c.mixed else 1)


def mixed_total(c: Choices, nodes: int) -> int:
    """Largest denominator of the mixing's integer matrix, to which each row adds up."""
    bucket = c.spec.aggregation.bucket
    return nodes if c.mixing.needs_distances else max(bucket * (bucket - 1), 1)


def largest_sum(c: Choices, nodes: int) -> int:
    """Bound of |Σ w·q| over `nodes` updates, in units of 2^-F."""
    return c.spec.ring.value_bound * (1 << c.spec.ring.fraction_bits) * weight_total(c, nodes)


def largest_cap(c: Choices) -> int:
    """The largest weight cap under which no sum of `max_cohort` updates passes 63 bits; 0 where the cap decides nothing."""
    if not c.rule.linear or c.spec.aggregation.weights != "examples":
        return 0
    unit = c.spec.ring.value_bound * (1 << c.spec.ring.fraction_bits) * weight_total(c, c.spec.rounds.max_cohort, 1)
    return max(HEADROOM // unit - 1, 0)  # as `flb.spec_check` has it


def largest_cohort(c: Choices) -> int:
    """The largest cohort whose sums stay below 63 bits: they grow with the cohort, so it is found by halving."""
    low, high = 0, COHORTS
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if largest_sum(c, middle) < HEADROOM else (low, middle - 1)
    return low
