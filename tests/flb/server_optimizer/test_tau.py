# SPDX-License-Identifier: Apache-2.0
"""`tau: auto`: exact sums in any order, the definition in fractions, and never zero."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.server_optimizer.tau import automatic, square_sum

pytestmark = pytest.mark.unit


def slow_square_sum(values: np.ndarray, norm_bound: int) -> int:
    """By fractions; `round` goes half to even."""
    return sum(round(Fraction(float(value)) * 2**26 / norm_bound) ** 2 for value in values)


@given(st.lists(st.floats(-4.0, 4.0, width=32), max_size=40), st.sampled_from([1, 16, 2**12]))
def test_square_sum__any_block__is_exact(values: list[float], norm_bound: int) -> None:
    block = np.array(values, dtype=np.float64)
    assert square_sum(block, norm_bound) == slow_square_sum(block, norm_bound)


def test_square_sum__beyond_two_to_the_53__is_exact() -> None:
    """A mean of admitted updates has a norm of at most 2^26 units; this has far more."""
    block = np.random.default_rng(1).standard_normal(1000)
    assert square_sum(block, 1) == slow_square_sum(block, 1) > 2**60


def test_square_sum__any_cut_into_blocks__adds_to_the_same() -> None:
    block = np.random.default_rng(2).standard_normal(70_000) * 1e-3
    assert square_sum(block[:12_345], 16) + square_sum(block[12_345:], 16) == square_sum(block, 16)


def test_automatic__normal_means__is_the_share_of_their_root_mean_square() -> None:
    block = np.random.default_rng(3).standard_normal(10_000) * 1e-3
    tau = automatic(square_sum(block, 16), block.size, 0.1, 16, 32)
    assert tau == pytest.approx(0.1 * math.sqrt(float(np.mean(block**2))), rel=1e-5)
    assert (tau * 2**32).is_integer()


def test_automatic__known_squares__is_the_definition() -> None:
    """√(16/4) = 2 units of norm_bound/2^26, a quarter of it."""
    assert automatic(16, 4, 0.25, 16, 32) == 0.5 * 16 / 2**26


def test_automatic__half_a_unit__goes_to_even() -> None:
    units = [automatic(n * n, 1, 2.0**-7, 1, 32) * 2**32 for n in (1, 3, 5)]  # n/2 units
    assert units == [1.0, 2.0, 2.0]


def test_automatic__first_mean_of_zeros__is_one_unit() -> None:
    assert automatic(0, 100, 0.1, 16, 32) == 2.0**-32
