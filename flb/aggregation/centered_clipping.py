# SPDX-License-Identifier: Apache-2.0
"""Centered clipping (Karimireddy et al., ICML 2021, arXiv 2012.10333): a mean of differences of bounded length.

v ← v + 1/n Σ (xᵢ - v)·min(1, tau/‖xᵢ - v‖). tau is `radius` times the median of ‖xᵢ - v‖, taken anew in every step, since
the length of an update falls over a run. v starts at the geometric median, a point in the span of the updates that no
f < n/2 of them can move far, so the iterate is kept as coefficients, and no state goes from round to round.
"""

import numpy as np

from flb.aggregation import geometric_median
from flb.aggregation.affine import chain, distances, middle
from flb.aggregation.weighing import Weighing, of_coefficients
from flb.capabilities import RuleCapabilities
from flb.delta import Float64

CAPABILITIES = RuleCapabilities(settings=("iterations", "radius"))

ITERATIONS = 3
"""Steps where the spec says 0."""

RADIUS = 1.0
"""tau in median distances where the spec says 0."""


def clip_step(squared: Float64, point: Float64, radius: float | None = None, factor: float = RADIUS) -> Float64:
    """One step from the point of these coefficients. tau is `radius`, or `factor` times the median distance.

    An update at distance zero is whole, also where tau is zero because most updates are equal.
    """
    away = distances(squared, point)
    tau = factor * middle(away) if radius is None else radius
    whole = away <= tau
    share = np.where(whole, 1.0, tau / np.where(whole, 1.0, away))
    left = 1.0 - chain(share) / len(share)
    return point * left + share / len(share)


def coefficients(squared: Float64, iterations: int, factor: float, start: Float64) -> Float64:
    """The iterate after so many steps."""
    point = start
    for _ in range(iterations):
        point = clip_step(squared, point, factor=factor)
    return point


def weigh(squared: Float64, iterations: int = 0, factor: float = 0.0) -> Weighing:
    """Centered clipping as integer weights."""
    start = geometric_median.coefficients(squared, geometric_median.ITERATIONS)
    return of_coefficients(coefficients(squared, iterations or ITERATIONS, factor or RADIUS, start))
