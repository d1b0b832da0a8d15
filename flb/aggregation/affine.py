# SPDX-License-Identifier: Apache-2.0
"""Points in the span of the updates, as coefficients that add up to 1, and their distances to every update.

With D the squared distances, ‖Σ cᵢxᵢ - xⱼ‖² = Σᵢ cᵢDᵢⱼ - ½ Σᵢⱼ cᵢcⱼDᵢⱼ. Each sum is a float64 chain in index order, so
all machines get the same bits (docs/arithmetic.md 2).
"""

from collections.abc import Iterable

import numpy as np

from flb.delta import Float64


def chain(terms: Iterable[float]) -> float:
    """The sum in order, each addition rounded: `sum` adds floats in another way since Python 3.12."""
    total = 0.0
    for term in terms:
        total = total + float(term)
    return total


def distances(squared: Float64, coefficients: Float64) -> Float64:
    """From the point Σ cᵢxᵢ to every update; `squared` is n×n. Rounding below zero counts as zero."""
    towards = np.zeros(len(squared))
    for coefficient, row in zip(coefficients, squared, strict=True):
        if coefficient != 0:
            towards += coefficient * row
    spread = chain(coefficients * towards) * 0.5
    return np.sqrt(np.maximum(towards - spread, 0.0))


def middle(values: Float64) -> float:
    """The lower median: one of the values."""
    return float(np.sort(values)[(values.size - 1) // 2])
