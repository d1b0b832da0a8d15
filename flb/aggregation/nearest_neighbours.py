# SPDX-License-Identifier: Apache-2.0
"""Nearest-neighbour mixing (NNM, Allouah et al., AISTATS 2023, arXiv 2302.01772): before a rule, every update becomes the
mean of the n - f updates nearest to it, itself included.

It lets rules that pick or trim see what honest nodes with different data agree on: kappa becomes 8f/(n - f)·(kappa + 1).
"""

import numpy as np

from flb.aggregation.mixture import Mixture
from flb.delta import Int64


def least_updates(byzantine: int) -> int:
    """The fewest updates of which `byzantine` may be wrong."""
    return 2 * byzantine + 1


def mixture(squared: Int64, byzantine: int) -> Mixture:
    """Row i has a 1 for each of the n - f updates nearest to i; ties go to the first in node order."""
    count = len(squared)
    near = np.argsort(squared, axis=1, kind="stable")[:, : count - byzantine]
    matrix = np.zeros((count, count), dtype=np.int64)
    np.put_along_axis(matrix, near, 1, axis=1)
    return Mixture(matrix, count - byzantine)
