# SPDX-License-Identifier: Apache-2.0
"""Weighted mean of updates: FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629), exact in the ring.

Holds for any number of honest nodes; one node can move the mean by its weight, which `weight_cap` bounds.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.capabilities import RuleCapabilities

CAPABILITIES = RuleCapabilities(linear=True, robust=False, factor=0)


def weight_of(examples: int, records: int, weight_cap: int) -> int:
    """min(examples claimed, records registered, cap): a claim beyond what was registered changes nothing."""
    return min(examples, records, weight_cap)


def weighted_sum(blocks: Iterable[tuple[int, NDArray[Any]]], total: NDArray[Any]) -> NDArray[Any]:
    """Set `total` to Σ wᵢ·qᵢ over (weight, ring values) pairs of `total`'s shape and type, and return it.

    Values are scaled in place: the blocks are the caller's scratch. int64 never overflows, as the planner has proved;
    float64 is for sums that `flb.delta.exact_in_float64` allows.
    """
    total.fill(0)  # and 0 + -0 is 0, so a sum in float64 has no -0, as int64 has none
    for weight, values in blocks:
        np.multiply(values, total.dtype.type(weight), out=values)
        np.add(total, values, out=total)
    return total
