# SPDX-License-Identifier: Apache-2.0
"""The table of rules: what a run's `aggregation` makes of the distances between updates, or of their coordinates.

A rule is of one of two kinds. Either it weighs whole updates, from their Gram matrix to integer weights; or it reduces
every coordinate to a sum of order statistics. Mixing comes before both. What a round cannot satisfy is refused.
"""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from flb.aggregation import (
    bucketing,
    centered_clipping,
    geometric_median,
    krum,
    mean,
    median,
    multi_krum,
    nearest_neighbours,
    norm_bound,
    trimmed_mean,
)
from flb.aggregation.gram import squared_distances, with_origin
from flb.aggregation.mixture import Mixture
from flb.aggregation.weighing import Weighing
from flb.capabilities import RuleCapabilities
from flb.delta import Float64, Int64
from flb.errors import Refused
from flb.spec_sections import AggregationSpec
from flb.types import Step

RULES: dict[str, ModuleType] = {
    "mean": mean, "median": median, "trimmed_mean": trimmed_mean, "krum": krum, "multi_krum": multi_krum,
    "geometric_median": geometric_median, "centered_clipping": centered_clipping, "norm_bound": norm_bound,
}  # fmt: skip
"""By the name in the spec."""


def capabilities(aggregation: AggregationSpec) -> RuleCapabilities:
    """What the run's rule declares."""
    declared: RuleCapabilities = RULES[aggregation.rule].CAPABILITIES
    return declared


def needs_distances(aggregation: AggregationSpec) -> bool:
    """Whether a round needs the Gram matrix of its updates."""
    declared = capabilities(aggregation)
    return aggregation.mixing == "nearest_neighbours" or not (declared.linear or declared.coordinates)


def least_updates(aggregation: AggregationSpec) -> int:
    """The fewest updates with which a round can be combined."""
    f = aggregation.byzantine
    least = max(1, capabilities(aggregation).least(f))
    if aggregation.rule in ("krum", "multi_krum"):
        least = max(least, aggregation.neighbours + 1)
    if aggregation.rule == "multi_krum":
        least = max(least, aggregation.selected + f)
    if aggregation.mixing == "bucketing":
        return bucketing.least_updates(least, aggregation.bucket)
    if aggregation.mixing == "nearest_neighbours":
        least = max(least, nearest_neighbours.CAPABILITIES.factor * f + 1, aggregation.neighbours)
    return least


def check(aggregation: AggregationSpec, count: int) -> None:
    """Raise Refused for a rule that `count` updates cannot satisfy, or in which nodes could buy influence by their claims."""
    name = aggregation.rule if aggregation.mixing == "none" else f"{aggregation.rule} after {aggregation.mixing}"
    if aggregation.weights == "examples" and (capabilities(aggregation).robust or aggregation.mixing != "none"):
        raise Refused(f"{name} lets every update count once", "set run.aggregation.weights to equal")
    if aggregation.mixing == "bucketing" and not 1 <= aggregation.bucket <= bucketing.LARGEST:
        raise Refused(
            f"run.aggregation.bucket is {aggregation.bucket}", f"choose a group size from 1 to {bucketing.LARGEST}"
        )
    if count < (least := least_updates(aggregation)):
        raise Refused(
            f"{name} with {aggregation.byzantine} wrong updates needs at least {least} updates, there are {count}",
            "lower run.aggregation.byzantine, or raise run.min_nodes",
        )


def mixture(aggregation: AggregationSpec, squared: Int64 | None, count: int, salt: bytes, step: Step) -> Mixture | None:
    """What the run mixes before its rule; `squared` are the updates' distances where they are needed."""
    if aggregation.mixing == "bucketing":
        return bucketing.mixture(bucketing.order(salt, step, count), aggregation.bucket)
    if aggregation.mixing == "nearest_neighbours":
        assert squared is not None, "mixing of nearest neighbours compares updates"
        return nearest_neighbours.mixture(squared, aggregation.byzantine, aggregation.neighbours)
    return None


def weigh(aggregation: AggregationSpec, gram: Int64 | None, weights: Sequence[int], mixed: Mixture | None) -> Weighing:
    """The weights of a rule that weighs whole updates, the mean included; `gram` where `needs_distances`. Raises Refused
    where nothing has a weight."""
    each = (1,) * (len(mixed.matrix) if mixed else len(weights))
    counted = tuple(weights) if aggregation.weights == "examples" else each
    if not any(counted):
        raise Refused("every update of the round has weight 0", "set run.aggregation.weights to equal")
    if capabilities(aggregation).linear:
        found = Weighing(counted, sum(counted))
    else:
        assert gram is not None, "the rule compares updates"
        found = _by_distance(aggregation, gram, counted, mixed)
    return mixed.unmix(found) if mixed else found


def _by_distance(
    aggregation: AggregationSpec, gram: Int64, weights: tuple[int, ...], mixed: Mixture | None
) -> Weighing:
    """Weights of the updates as the rule sees them, mixed or not."""
    f = aggregation.byzantine
    if aggregation.rule == "norm_bound":
        norms = np.sqrt(_squared(with_origin(gram), mixed.with_origin() if mixed else None)[:-1, -1])
        return norm_bound.weigh(norms, weights, aggregation.radius)
    squared = _squared(gram, mixed)
    if aggregation.rule == "krum":
        return krum.weigh(squared, f, aggregation.neighbours)
    if aggregation.rule == "multi_krum":
        return multi_krum.weigh(squared, f, aggregation.neighbours, aggregation.selected)
    if aggregation.rule == "geometric_median":
        return geometric_median.weigh(squared, aggregation.iterations)
    return centered_clipping.weigh(squared, aggregation.iterations, aggregation.radius)


def _squared(gram: Int64, mixed: Mixture | None) -> Float64:
    """Squared distances of what the rule sees."""
    squared = squared_distances(gram)
    return mixed.squared(squared) if mixed else squared.astype(np.float64)


def ranks(aggregation: AggregationSpec, count: int) -> tuple[int, int]:
    """The ranks that a rule on coordinates keeps of `count` values: from the first, to before the second."""
    return median.ranks(count) if aggregation.rule == "median" else trimmed_mean.ranks(count, aggregation.byzantine)
