# SPDX-License-Identifier: Apache-2.0
"""What an algorithm can do, as data: each declares one constant `CAPABILITIES`, and the planner composes them.

A declaration states a property of the algorithm, never a list of its neighbours: what goes together follows from them
(`flb.legality`), and so do the tables in docs/aggregation.md.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModeCapabilities:
    """A LoRA mode. `linear`: its result is linear in what nodes send, so updates may be summed. `both_factors`: a step
    sends A and B, so that a coordinate of the update is no coordinate of the product. `exact`: the mean is that of the
    products. `bit_exact`: any machine makes the same bytes. `ranks_differ`: nodes may train at ranks of their own.
    `restarts`: factors begin anew in every round. `turns`: the factors' basis may change between rounds."""

    linear: bool
    both_factors: bool
    exact: bool
    bit_exact: bool
    ranks_differ: bool = False
    restarts: bool = False
    turns: bool = False


@dataclass(frozen=True, slots=True)
class RuleCapabilities:
    """An aggregation rule. `linear`: a weighted sum with weights that do not depend on the updates. `coordinates`: it
    looks at each coordinate alone; other rules that are not linear weigh whole updates. `robust`: it bears hostile
    updates, and so wants weights that nobody can claim. `selects`: its weights are 0 and 1, so that its sums are no
    larger than those of equal weights. `factor`, `offset`: it needs at least factor·f + offset of them. `settings`: which
    of `aggregation`'s numbers it reads, beside f."""

    linear: bool = False
    coordinates: bool = False
    robust: bool = True
    selects: bool = False
    factor: int = 2
    offset: int = 1
    settings: tuple[str, ...] = ()

    @property
    def weighs(self) -> bool:
        """Whether it weighs whole updates by their distances."""
        return not (self.linear or self.coordinates)

    def least(self, byzantine: int) -> int:
        """The least number of updates, `byzantine` of which may be hostile."""
        return self.factor * byzantine + self.offset


@dataclass(frozen=True, slots=True)
class MixingCapabilities:
    """What comes before a rule. `needs_distances`: it compares whole updates; else it averages buckets of them. `factor`,
    `offset`, `settings` as for a rule."""

    needs_distances: bool
    factor: int = 2
    offset: int = 1
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OptimizerCapabilities:
    """A server optimizer. `moments`: arrays of the adapter's size that it keeps; they need factors whose basis stays.
    `adaptive`: it divides by the root of one of them, so that its step is about as large as its learning rate."""

    moments: int
    adaptive: bool = False


@dataclass(frozen=True, slots=True)
class CodecCapabilities:
    """A codec. `lossless`, and `unbiased` where rounding is at random with the right mean."""

    lossless: bool
    unbiased: bool


@dataclass(frozen=True, slots=True)
class PrivacyCapabilities:
    """A privacy mechanism. `central`: the aggregator adds the noise, so it must sum and nothing else, with equal
    weights, and no update may be shown. `local`: the node does."""

    central: bool = False
    local: bool = False
