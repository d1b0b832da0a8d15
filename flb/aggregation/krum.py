# SPDX-License-Identifier: Apache-2.0
"""Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the one update that is nearest to its nearest others.

The score of an update is the sum of its squared distances to the n - f - 2 nearest others, and the lowest wins. ByzFL
takes n - f - 1 of them, which picks another update in about one draw of six; `neighbours` chooses. Holds for
n ≥ 2f + 3, kappa ≤ 6(1 + f/(n - 2f)).
"""

import numpy as np

from flb.aggregation.weighing import Weighing, of_selection
from flb.capabilities import RuleCapabilities
from flb.delta import Float64

CAPABILITIES = RuleCapabilities(offset=3, selects=True, settings=("neighbours",))


def neighbour_count(count: int, byzantine: int, neighbours: int = 0) -> int:
    """How many neighbours an update is measured by: `neighbours`, or with 0 the paper's n - f - 2."""
    return neighbours or count - byzantine - 2


def scores(squared: Float64, neighbours: int) -> Float64:
    """Σ of the `neighbours` smallest squared distances of each update to others, added from the smallest on."""
    count = len(squared)
    others = squared[~np.eye(count, dtype=np.bool_)].reshape(count, count - 1)
    nearest = np.sort(others, axis=1)
    total = np.zeros(count)
    for rank in range(neighbours):
        total += nearest[:, rank]
    return total


def best(squared: Float64, neighbours: int, selected: int) -> list[int]:
    """The `selected` updates of the lowest scores; ties go to the first in node order."""
    return [int(index) for index in np.argsort(scores(squared, neighbours), kind="stable")[:selected]]


def weigh(squared: Float64, byzantine: int, neighbours: int = 0) -> Weighing:
    """Weight 1 for the update that wins."""
    count = len(squared)
    return of_selection(best(squared, neighbour_count(count, byzantine, neighbours), 1), count)
