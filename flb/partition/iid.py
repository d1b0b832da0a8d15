# SPDX-License-Identifier: Apache-2.0
"""Every node draws from the same distribution: a seeded order cut into equal parts."""

from flb.partition import Partition, check_nodes
from flb.partition.permutation import permutation


def partition(records: int, nodes: int, seed: int) -> Partition:
    """Parts whose sizes differ by one at most. Raises Refused if there are fewer records than nodes."""
    check_nodes(nodes, records)
    order = permutation(records, seed, "iid")
    return [sorted(order[node::nodes]) for node in range(nodes)]
