# SPDX-License-Identifier: Apache-2.0
"""Records that share a value of one column stay together: each node gets whole topics, languages or authors."""

from collections.abc import Sequence

from flb.errors import Refused
from flb.partition import Partition, check_nodes


def partition(values: Sequence[str], nodes: int) -> Partition:
    """`values[i]` is the column of record i. The largest group goes to the least laden node, groups of one size in the
    order of their values, so nothing is drawn and no seed is needed.

    Raises Refused if there are fewer values than nodes.
    """
    check_nodes(nodes, len(values))
    groups: dict[str, list[int]] = {}
    for index, value in enumerate(values):
        groups.setdefault(value, []).append(index)
    if nodes > len(groups):
        raise Refused(f"the column has {len(groups)} values, too few for {nodes} nodes", "choose fewer nodes")
    parts: Partition = [[] for _ in range(nodes)]
    for value in sorted(groups, key=lambda value: (-len(groups[value]), value)):
        min(parts, key=len).extend(groups[value])
    return [sorted(part) for part in parts]
