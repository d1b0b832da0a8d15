# SPDX-License-Identifier: Apache-2.0
"""Clipping: the bound holds exactly for whatever comes in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.delta import BLOCK, Int64, check_bound
from flb.errors import Fatal, NotFinite, Refused, ValueTooLarge
from flb.privacy.clip import ONE, Factor, SquareSum, clip_factor, ring_norm

pytestmark = pytest.mark.unit

VALUES = st.one_of(st.integers(-(2**62) + 1, 2**62 - 1), st.integers(-(2**20), 2**20))


def exact(values: Int64) -> int:
    return sum(int(value) ** 2 for value in values)


def clipped(values: Int64, bound: int, block: int = 5) -> Int64:
    factor = clip_factor(lambda: (values[at : at + block] for at in range(0, values.size, block)), bound)
    out = values.copy()
    factor.apply(out)
    return out


@given(st.lists(VALUES, max_size=40), st.integers(1, 2**66))
def test_clip__anything__holds_the_bound_exactly_and_shrinks_toward_zero(raw: list[int], bound: int) -> None:
    values = np.array(raw, dtype=np.int64)
    out = clipped(values, bound)
    assert exact(out) <= bound * bound
    assert (np.abs(out) <= np.abs(values)).all() and (out.astype(object) * values.astype(object) >= 0).all()
    if exact(values) <= bound * bound:
        assert out.tolist() == values.tolist()


@given(st.lists(st.integers(-(2**34), 2**34), min_size=1, max_size=30), st.integers(2**20, 2**32))
def test_clip__a_long_update__keeps_its_direction_and_nearly_all_of_the_bound(raw: list[int], bound: int) -> None:
    values = np.array(raw, dtype=np.int64)
    norm = exact(values) ** 0.5
    if norm <= bound:
        return
    out = clipped(values, bound)
    scale = bound / norm
    assert np.abs(out - values * scale).max() <= 2 + 2.0**-27 * np.abs(values).max()


@given(st.lists(VALUES, max_size=60), st.integers(1, 7))
def test_square_sum__blocks_of_any_size__is_the_sum_in_integers(raw: list[int], size: int) -> None:
    values, squares = np.array(raw, dtype=np.int64), SquareSum()
    for at in range(0, values.size, size):
        squares.add(values[at : at + size])
    assert squares.total == exact(values)
    assert squares.bits == max((abs(value).bit_length() for value in raw), default=0)


def test_square_sum__full_block_of_the_largest_limbs__is_exact() -> None:
    values = np.full(BLOCK + 3, 2**62 - 1, dtype=np.int64)
    squares = SquareSum()
    squares.add(values)
    assert squares.total == (BLOCK + 3) * (2**62 - 1) ** 2


def test_clip__zero_update__is_left_alone() -> None:
    values = np.zeros(7, dtype=np.int64)
    assert clip_factor(lambda: [values], 1) is ONE and clip_factor(list, 1) is ONE


def test_clip__bound_of_one_unit__leaves_at_most_one() -> None:
    assert clipped(np.array([5, -7, 2**61], dtype=np.int64), 1).tolist() == [0, 0, 0]
    assert clipped(np.array([0, -1], dtype=np.int64), 1).tolist() == [0, -1]


def test_factor__negative_values__are_cut_off_toward_zero() -> None:
    values = np.array([-3, 3, -1, 1, 0], dtype=np.int64)
    Factor(1, 1).apply(values)
    assert values.tolist() == [-1, 1, 0, 0, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_clip__not_ring_integers__is_refused(dtype: type) -> None:
    """bfloat16 travels as uint16: whatever is no ring value is turned away, never read as one."""
    with pytest.raises(Fatal, match="ring integers"):
        clip_factor(lambda: [np.ones(3, dtype=dtype)], 1)  # type: ignore[list-item]


def test_clip__value_beyond_62_bits__is_refused() -> None:
    with pytest.raises(ValueTooLarge, match="2\\^62"):
        clip_factor(lambda: [np.array([-(2**63)], dtype=np.int64)], 1)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_bound_before_the_ring__infinity_and_nan__are_refused(bad: float) -> None:
    with pytest.raises(NotFinite):
        check_bound(np.array([0.0, bad], dtype=np.float32), 4, "a")


def test_ring_norm__fractions__are_rounded_down() -> None:
    assert ring_norm(1.0, 32) == 2**32 and ring_norm(0.1, 8) == 25


@pytest.mark.parametrize("norm", [0.0, -1.0, float("inf"), float("nan"), 2.0**-40])
def test_ring_norm__no_norm__is_refused(norm: float) -> None:
    with pytest.raises(Refused, match="clip norm"):
        ring_norm(norm, 32)
