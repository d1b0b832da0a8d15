# SPDX-License-Identifier: Apache-2.0
"""Geometric median (RFA, Pillutla et al., IEEE TSP 2022, arXiv 1912.13445): the point of least summed distance.

Smoothed Weiszfeld: each step weighs update i by 1/max(nu, ‖y - xᵢ‖). The iterate stays in the span of the updates and
is kept as coefficients. It starts at the mean of the majority nearest to the medoid: from the mean of all it would need
many steps where nearly half are far away. Holds for f < n/2, kappa ≤ 4(1 + f/(n - 2f))².
"""

import numpy as np

from flb.aggregation.affine import chain, distances
from flb.aggregation.weighing import Weighing, of_coefficients
from flb.capabilities import RuleCapabilities
from flb.delta import Float64

CAPABILITIES = RuleCapabilities(settings=("iterations",))

ITERATIONS = 32
"""Steps where the spec says 0; each costs n² operations, whatever the adapter's size."""

SMOOTHING = 1.0
"""nu in units of the Gram matrix: below one unit distances are rounding."""


def majority(squared: Float64) -> Float64:
    """Coefficients of the mean of the ⌊n/2⌋ + 1 updates nearest to the medoid, the update of least summed distance.

    Ties go to the first in node order.
    """
    count = len(squared)
    summed = np.zeros(count)
    for column in np.sqrt(squared):
        summed += column
    kept = count // 2 + 1
    nearest = np.argsort(squared[int(np.argmin(summed))], kind="stable")[:kept]
    point = np.zeros(count)
    point[nearest] = 1.0 / kept
    return point


def coefficients(
    squared: Float64, iterations: int, smoothing: float = SMOOTHING, start: Float64 | None = None
) -> Float64:
    """The iterate after so many steps, from `start` (`majority`); the coefficients add up to 1 but for rounding."""
    point = majority(squared) if start is None else start
    for _ in range(iterations):
        pull = 1.0 / np.maximum(smoothing, distances(squared, point))
        point = pull / chain(pull)
    return point


def weigh(squared: Float64, iterations: int = 0, smoothing: float = SMOOTHING) -> Weighing:
    """The geometric median as integer weights."""
    return of_coefficients(coefficients(squared, iterations or ITERATIONS, smoothing))
