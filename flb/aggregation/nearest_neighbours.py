# SPDX-License-Identifier: Apache-2.0
"""Nearest-neighbour mixing (NNM, Allouah et al., AISTATS 2023, arXiv 2302.01772): before a rule, every update becomes the
mean of the n - f updates nearest to it, itself included.

It lets rules that pick or trim see what honest nodes with different data agree on: kappa becomes 8f/(n - f)·(kappa + 1).
"""

import numpy as np

from flb.aggregation.mixture import Mixture
from flb.capabilities import MixingCapabilities
from flb.delta import Int64

CAPABILITIES = MixingCapabilities(needs_distances=True, settings=("neighbours",))


def mixture(squared: Int64, byzantine: int, neighbours: int = 0) -> Mixture:
    """Row i has a 1 for each of the `neighbours` updates nearest to i, with 0 the paper's n - f; ties go to the first in
    node order."""
    count = len(squared)
    averaged = neighbours or count - byzantine
    near = np.argsort(squared, axis=1, kind="stable")[:, :averaged]
    matrix = np.zeros((count, count), dtype=np.int64)
    np.put_along_axis(matrix, near, 1, axis=1)
    return Mixture(matrix, averaged)
