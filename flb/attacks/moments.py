# SPDX-License-Identifier: Apache-2.0
"""Mean and standard deviation of the honest updates, coordinate by coordinate, added in order of address."""

from collections.abc import Sequence

import numpy as np

from flb.delta import Float32, Float64


def mean(values: Sequence[Float32]) -> Float64:
    """The unweighted mean in float64 of at least one array."""
    total = np.zeros(values[0].shape, dtype=np.float64)
    for value in values:
        total += value
    total /= np.float64(len(values))
    return total


def deviation(values: Sequence[Float32]) -> Float64:
    """The standard deviation with n - 1 below, in float64; 0 for a single array."""
    middle, total = mean(values), np.zeros(values[0].shape, dtype=np.float64)
    for value in values:
        apart = value - middle
        apart *= apart
        total += apart
    total /= np.float64(max(1, len(values) - 1))
    return np.sqrt(total)
