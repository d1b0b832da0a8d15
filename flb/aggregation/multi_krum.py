# SPDX-License-Identifier: Apache-2.0
"""Multi-Krum (Blanchard et al., NeurIPS 2017, arXiv 1703.02757): the mean of the m updates of the lowest Krum scores.

m is n - f, as in ByzFL, unless `selected` says otherwise; the paper has at most n - f - 2. Scores are those of the paper,
from n - f - 2 neighbours, where ByzFL takes n - f - 1. Holds for n ≥ 2f + 3.
"""

from flb.aggregation import krum
from flb.aggregation.weighing import Weighing, of_selection
from flb.capabilities import RuleCapabilities
from flb.delta import Float64

CAPABILITIES = RuleCapabilities(offset=3, selects=True, settings=("neighbours", "selected"))


def weigh(squared: Float64, byzantine: int, neighbours: int = 0, selected: int = 0) -> Weighing:
    """Weight 1 for each of the selected updates."""
    count = len(squared)
    near = krum.neighbour_count(count, byzantine, neighbours)
    return of_selection(krum.best(squared, near, selected or count - byzantine), count)
