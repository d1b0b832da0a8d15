# SPDX-License-Identifier: Apache-2.0
"""What each update counts: its admitted weight, or what the run's rule makes of the distances between updates.

Rules that reduce coordinates are `flb_aggregator.reduce`'s; what they need from here is their mixture and denominator.
"""

from collections.abc import Sequence
from typing import NamedTuple

from flb.aggregation import rules
from flb.aggregation.gram import squared_distances
from flb.aggregation.mixture import Mixture
from flb.errors import Refused
from flb.spec import RunSpec
from flb.types import LoraMode, Step
from flb_aggregator import product_distances, update_gram
from flb_aggregator.files import Files


class Counted(NamedTuple):
    """How many updates; one integer for each, in node order, and what their sum is divided by. `kept` are the ranks of a
    rule that reduces coordinates, after `mixture`; it has no weights."""

    updates: int
    weights: tuple[int, ...]
    denominator: int
    kept: tuple[int, int] | None = None
    mixture: Mixture | None = None


def reweigh(spec: RunSpec, step: Step, weights: Sequence[int], files: Files, threads: int) -> Counted:
    """Apply the run's mixing and rule to the round's updates; `weights` are the admitted ones.

    Raises Refused where the round has too few updates for the rule, or where its integers could overflow, and
    CorruptStore for an update that changed since it was admitted.
    """
    aggregation, count, mode = spec.aggregation, len(weights), spec.lora_mode
    rules.check(aggregation, count)
    compares, coordinates = rules.needs_distances(aggregation), rules.capabilities(aggregation).coordinates
    if (mode is LoraMode.STACK and compares) or (mode in (LoraMode.STACK, LoraMode.PRODUCT) and coordinates):
        raise Refused(
            f"{aggregation.rule} cannot compare the updates of mode {mode}", "set lora.mode to freeze_a or alternate"
        )
    gram = None
    if compares:
        both = mode in (LoraMode.FACTORS, LoraMode.PRODUCT)
        gram = (product_distances if both else update_gram).gram_of(spec, step, count, files, threads)
    squared = squared_distances(gram) if gram is not None else None
    mixture = rules.mixture(aggregation, squared, count, bytes.fromhex(spec.salt), step)
    if coordinates:
        first, last = rules.ranks(aggregation, count if mixture is None else len(mixture.matrix))
        divisor = (last - first) * (1 if mixture is None else mixture.denominator)
        counted = Counted(count, (), divisor, (first, last), mixture)
    else:
        counted = Counted(count, *rules.weigh(aggregation, gram, weights, mixture))
    largest = max(sum(counted.weights), counted.denominator)
    if largest * spec.ring.value_bound << spec.ring.fraction_bits >= 1 << 63:
        raise Refused(
            f"{aggregation.rule} of {count} updates adds up to more than 63 bits hold",
            "lower run.max_cohort, or mix with smaller groups",
        )
    return counted
