# SPDX-License-Identifier: Apache-2.0
"""What a rule that weighs whole updates comes to: integer weights, so that the result is a sum in the ring."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from flb.delta import Float64

COEFFICIENT_BITS = 20
"""A coefficient c becomes the integer round-half-even(c · 2^20)."""


class Weighing(NamedTuple):
    """The result is Σ weights·q / denominator, weights in the order of the updates."""

    weights: tuple[int, ...]
    denominator: int


def of_coefficients(coefficients: Float64) -> Weighing:
    """Coefficients that add up to 1, as integers; what their rounding leaves over goes into the denominator."""
    weights = integers(coefficients)
    return Weighing(weights, sum(weights))


def integers(coefficients: Float64) -> tuple[int, ...]:
    """round-half-even(c · 2^20), each rounded once: the product with a power of two is exact."""
    return tuple(int(weight) for weight in np.rint(coefficients * 2.0**COEFFICIENT_BITS))


def of_selection(chosen: Iterable[int], count: int) -> Weighing:
    """Weight 1 for the chosen of `count` updates, 0 for the others."""
    picked = set(chosen)
    return Weighing(tuple(int(index in picked) for index in range(count)), len(picked))
