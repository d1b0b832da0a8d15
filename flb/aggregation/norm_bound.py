# SPDX-License-Identifier: Apache-2.0
"""Norm bound (Sun et al., 2019, arXiv 1911.07963): updates longer than M are scaled down to M, then averaged.

It bounds what one node can do by its weight times M, and leaves honest updates of usual length as they are. M is
`radius` times the median length of the round's updates, since lengths fall over a run.
"""

from collections.abc import Sequence

import numpy as np

from flb.aggregation.affine import middle
from flb.aggregation.weighing import COEFFICIENT_BITS, Weighing, integers
from flb.capabilities import RuleCapabilities
from flb.delta import Float64

CAPABILITIES = RuleCapabilities(settings=("radius",))


RADIUS = 1.0
"""M in median lengths where the spec says 0."""


def weigh(norms: Float64, weights: Sequence[int], factor: float = 0.0) -> Weighing:
    """Weights of updates of these lengths; M is `factor` median lengths.

    Where nothing is longer than the bound it is the weighted mean itself, without a rounding of coefficients.
    """
    longest = (factor or RADIUS) * middle(norms)
    long = norms > longest
    if not long.any():
        return Weighing(tuple(weights), sum(weights))
    kept = np.where(long, longest / np.where(long, norms, 1.0), 1.0)
    shares = np.array([float(weight) for weight in weights]) / float(sum(weights))
    return Weighing(integers(shares * kept), 1 << COEFFICIENT_BITS)
