# SPDX-License-Identifier: Apache-2.0
"""The ring: rounding, bounds, exact norms."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import delta
from flb.errors import NormTooLarge, NotFinite, ValueTooLarge

pytestmark = pytest.mark.unit

FLOATS = st.floats(min_value=-4, max_value=4, width=32)


def ring(values: list[float], bits: int = 32) -> list[int]:
    array = np.array(values, dtype=np.float32)
    return [int(q) for q in delta.to_ring(array, bits, np.empty(len(values), dtype=np.int64))]


@given(st.lists(FLOATS, min_size=1, max_size=20))
def test_to_ring__any_float32__is_round_half_even_of_the_exact_product(values: list[float]) -> None:
    expected = [round(Fraction(float(np.float32(value))) * 2**32) for value in values]
    assert ring(values) == expected


def test_to_ring__halves__go_to_even() -> None:
    assert ring([0.5, 1.5, 2.5, -0.5, -1.5], bits=0) == [0, 2, 2, 0, -2]


def test_to_ring__minus_zero_and_subnormals__are_zero() -> None:
    assert ring([-0.0, 2.0**-149, -(2.0**-140)]) == [0, 0, 0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_check_bound__nan_or_infinity__is_refused(value: float) -> None:
    with pytest.raises(NotFinite, match="tensor t holds NaN or infinity"):
        delta.check_bound(np.array([0.0, value, 1.0], dtype=np.float32), 4, "t")


@pytest.mark.parametrize("value", [4.0000005, -4.0000005, 1e30])
def test_check_bound__beyond__is_refused(value: float) -> None:
    with pytest.raises(ValueTooLarge, match="tensor t holds a value of size"):
        delta.check_bound(np.array([value], dtype=np.float32), 4, "t")


def test_check_bound__at_the_bound__passes() -> None:
    delta.check_bound(np.array([4.0, -4.0], dtype=np.float32), 4, "t")


@given(st.lists(FLOATS, min_size=1, max_size=20), st.integers(1, 65536))
def test_mean__one_update__returns_it_to_the_unit(values: list[float], weight: int) -> None:
    q = np.array(ring(values), dtype=np.int64) * weight
    result = delta.mean(q, weight, 32)
    assert np.all(np.abs(result - np.array(values, dtype=np.float32)) <= 2.0**-33)


def test_add_step__one_cast__rounds_once() -> None:
    adapter = np.array([1.0], dtype=np.float32)
    assert delta.add_step(adapter, np.array([2.0**-24]))[0] == np.float32(1.0)
    assert delta.add_step(adapter, np.array([2.0**-24 + 2.0**-50]))[0] == np.float32(1.0 + 2.0**-23)


@given(st.lists(FLOATS, min_size=1, max_size=50), st.sampled_from([1, 2, 4, 8, 16]))
def test_norm_check__any_order__decides_as_exact_integers_do(values: list[float], bound: int) -> None:
    q = np.array(ring(values), dtype=np.int64)
    shift = delta.norm_shift(bound, 32)
    exact = sum(round(Fraction(int(value), 2**shift)) ** 2 for value in q)
    floats = np.array(values, dtype=np.float32)
    delta.round_to_ring(floats, 32, out=floats)
    for order in (q, q[::-1], floats, floats[::-1]):
        check = delta.NormCheck(bound, 32)
        try:
            check.add(order)
            passed = True
        except NormTooLarge:
            passed = False
        assert passed == (exact <= 2**52)


def test_norm_check__at_the_bound__passes_and_one_more_is_refused() -> None:
    one = np.zeros(16, dtype=np.int64)
    one[0] = 16 * 2**32
    check = delta.NormCheck(16, 32)
    check.add(one)
    assert check.norm == 16.0
    with pytest.raises(NormTooLarge, match="beyond the run's bound 16"):
        check.add(one)


def test_assert_ieee__this_machine__passes() -> None:
    delta.assert_ieee()


@given(
    st.lists(st.floats(min_value=-(2.0**14), max_value=2.0**14, width=32), min_size=1, max_size=40),
    st.sampled_from([8, 20, 32, 40]),
    st.sampled_from([1, 16, 2**20, 2**70, 2**120, 2**200]),
)
def test_norm_check__ring_values_in_float32__sum_as_those_in_int64(values: list[float], bits: int, bound: int) -> None:
    """The bounds reach beyond what a spec would choose, so that the reduction underflows and overshoots."""
    totals = []
    floats = np.array(values, dtype=np.float32)
    wide = delta.to_ring(floats, bits, np.empty(floats.size, dtype=np.int64))
    narrow = floats.copy()
    delta.round_to_ring(narrow, bits, out=narrow)
    assert [int(q) for q in narrow] == wide.tolist()
    for block in (wide, narrow):
        check = delta.NormCheck(bound, bits)
        try:
            check.add(block)
            totals.append(check.total)
        except NormTooLarge:
            totals.append(math.inf)
    assert totals[0] == totals[1]


def test_exact_in_float64__default_ring__fits_eight_nodes_of_full_weight() -> None:
    assert delta.exact_in_float64(8 * 65536, 4, 32)
    assert not delta.exact_in_float64(8 * 65536 + 1, 4, 32)


@given(
    st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=200),
    st.sampled_from([1.0, 1e-3, 1e-8, 2.0**-149]),
    st.sampled_from([1, 2, 4, 16]),
    st.sampled_from([8, 16, 20, 32, 40]),
)
def test_estimate__says_sure__only_of_what_the_exact_checks_admit(
    values: list[float], scale: float, bound: int, bits: int
) -> None:
    block = (np.array(values, dtype=np.float32) * np.float32(scale)).astype(np.float32)
    estimate = delta.Estimate()
    if estimate.add(block, bound) and estimate.within(bound, bits):
        delta.check_bound(block, bound, "x")
        delta.NormCheck(bound, bits).add(delta.to_ring(block, bits, np.empty(block.size, np.int64)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_estimate__value_that_is_none__is_never_sure(bad: float) -> None:
    block = np.zeros(delta.Estimate.SIZE, dtype=np.float32)
    block[delta.Estimate.SIZE // 2] = bad
    assert not delta.Estimate().add(block, 4.0)


@pytest.mark.parametrize(("factor", "sure"), [(0.95, True), (0.99, False), (1.0, False), (1.01, False)])
def test_estimate__near_the_bound__is_left_to_the_exact_check(factor: float, sure: bool) -> None:
    block = np.full(delta.Estimate.SIZE, 16 * factor / np.sqrt(delta.Estimate.SIZE), dtype=np.float32)
    estimate = delta.Estimate()
    assert estimate.add(block, 16.0) == sure
    assert estimate.within(16, 32) == sure
