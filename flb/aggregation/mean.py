# SPDX-License-Identifier: Apache-2.0
"""Weighted mean of updates: FedAvg (McMahan et al., AISTATS 2017, arXiv 1602.05629), exact in the ring.

Holds for any number of honest nodes; one node can move the mean by its weight, which `weight_cap` bounds.
"""

from collections.abc import Iterable

import numpy as np

from flb.delta import Int64


def weight_of(examples: int, records: int, weight_cap: int) -> int:
    """min(examples claimed, records registered, cap): a claim beyond what was registered changes nothing."""
    return min(examples, records, weight_cap)


def weighted_sum(blocks: Iterable[tuple[int, Int64]], total: Int64) -> Int64:
    """Set `total` to Σ wᵢ·qᵢ over (weight, ring values) pairs of `total`'s shape and return it.

    Values are scaled in place: the blocks are the caller's scratch. The planner has proved that nothing overflows.
    """
    total.fill(0)
    for weight, values in blocks:
        np.multiply(values, np.int64(weight), out=values)
        np.add(total, values, out=total)
    return total
