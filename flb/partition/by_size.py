# SPDX-License-Identifier: Apache-2.0
"""Nodes of unequal size, each drawn from the whole dataset alike: quantity skew alone."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from flb.errors import Refused
from flb.partition import Partition, check_nodes
from flb.partition.permutation import permutation


def partition(records: int, shares: Sequence[int], seed: int) -> Partition:
    """Each node gets `shares[node]` parts of all `records`; what integers leave over goes to the last cuts.

    Raises Refused for a share below 1, or so small that its node would get no record.
    """
    check_nodes(len(shares), records)
    if min(shares) < 1:
        raise Refused(f"a share of {min(shares)}", "give each node at least 1")
    order, whole = permutation(records, seed, "by_size"), sum(shares)
    cuts = [records * reached // whole for reached in accumulate(shares, initial=0)]
    parts = [sorted(order[begin:end]) for begin, end in pairwise(cuts)]
    if empty := [node for node, part in enumerate(parts, start=1) if not part]:
        raise Refused(f"node {empty[0]} gets none of {records} records", "give it a larger share")
    return parts
