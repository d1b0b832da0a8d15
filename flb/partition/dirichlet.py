# SPDX-License-Identifier: Apache-2.0
"""Label skew with one dial: each value of a column is spread over the nodes by a draw from Dirichlet(alpha).

After Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification"
(arXiv 1909.06335), applied value by value: a small alpha gives each value to few nodes, a large one nears iid.
"""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from flb.errors import Refused
from flb.partition import Partition, check_nodes
from flb.partition.permutation import permutation


def partition(values: Sequence[str], nodes: int, alpha: float, seed: int) -> Partition:
    """`values[i]` is the column of record i; `alpha` is above 0; `seed` is 0 to 2^32 - 1.

    The shares come from numpy's frozen MT19937 stream and are cut in exact fractions. Raises Refused if alpha leaves a
    node empty: drawing again until it does not would bend the distribution that alpha names.
    """
    check_nodes(nodes, len(values))
    if not 0 < alpha < float("inf"):
        raise Refused(f"alpha is {alpha}", "give a number above 0")
    drawn = np.random.RandomState(seed)  # its stream is frozen by numpy's NEP 19; a Generator's may change
    groups: dict[str, list[int]] = {}
    for index in permutation(len(values), seed, "dirichlet"):
        groups.setdefault(values[index], []).append(index)
    parts: Partition = [[] for _ in range(nodes)]
    for value in sorted(groups):
        members, begin, reached = groups[value], 0, Fraction(0)
        shares = [Fraction(float(share)) for share in drawn.standard_gamma(alpha, nodes)]
        whole = sum(shares)
        if not whole:  # a tiny alpha: every gamma is below the smallest float
            shares[int(drawn.randint(nodes))] = whole = Fraction(1)
        for node, share in enumerate(shares):
            reached += share
            end = round(len(members) * reached / whole)
            parts[node] += members[begin:end]
            begin = end
    if empty := [node for node, part in enumerate(parts, start=1) if not part]:
        raise Refused(
            f"alpha {alpha:g} with seed {seed} leaves node {empty[0]} of {nodes} without a record",
            "raise alpha, choose another seed, or fewer nodes",
        )
    return [sorted(part) for part in parts]
