# SPDX-License-Identifier: Apache-2.0
"""Multi-Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the mean of the m updates of the lowest Krum scores.

m is n - f - 2 unless `selected` says otherwise; ByzFL takes n - f, and n - f - 1 neighbours where the paper has
n - f - 2. Holds for n ≥ 2f + 3, and is never worse than Krum.
"""

from flb.aggregation import krum
from flb.aggregation.weighing import Weighing, of_selection
from flb.delta import Float64


def least_updates(byzantine: int, neighbours: int = 0, selected: int = 0) -> int:
    """The fewest updates of which `byzantine` may be wrong, and of which `selected` can be trusted."""
    return max(krum.least_updates(byzantine, neighbours), selected + byzantine)


def weigh(squared: Float64, byzantine: int, neighbours: int = 0, selected: int = 0) -> Weighing:
    """Weight 1 for each of the selected updates."""
    count = len(squared)
    near = krum.neighbour_count(count, byzantine, neighbours)
    return of_selection(krum.best(squared, near, selected or count - byzantine - 2), count)
