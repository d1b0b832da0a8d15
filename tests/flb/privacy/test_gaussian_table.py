# SPDX-License-Identifier: Apache-2.0
"""The table against the definition, worked out another way, and its short cuts against the plain inversion."""

import decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.privacy.gaussian_table import BITS, DECIDED, FIRST_CODE, SLOTS, make_table

pytestmark = pytest.mark.unit

SMALL, LARGE = make_table(Fraction(128**2)), make_table(Fraction(89_999))
TABLES = st.sampled_from((make_table(Fraction(1, 4)), SMALL, LARGE))


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(128**2), Fraction(89_999), Fraction(10**9, 37_111)])
def test_thresholds__against_direct_exponentials_at_100_digits__are_within_one(variance: Fraction) -> None:
    table = make_table(variance)
    with decimal.localcontext(decimal.Context(prec=100)):
        double = 2 * decimal.Decimal(variance.numerator) / decimal.Decimal(variance.denominator)
        last = -table.first + 20
        pmf = {x: (-decimal.Decimal(x * x) / double).exp() for x in range(last + 1)}
        whole = pmf[0] + 2 * sum(pmf[x] for x in range(1, last + 1))
        running = sum(pmf[x] for x in range(-table.first + 1, last + 1))
        for index, threshold in enumerate(table.thresholds):
            running += pmf[abs(table.first + index)]
            assert abs(running / whole * (1 << BITS) - threshold) <= 1


@given(TABLES, st.integers(0, SLOTS - 1), st.sampled_from((0, 1, 2**111, 2**112 - 1)))
def test_slots__decided__are_right_for_every_continuation(table, slot: int, rest: int) -> None:  # type: ignore[no-untyped-def]
    value = int(table.slots[slot])
    if value >= DECIDED:
        assert table.invert_exactly((slot << 112) | rest) == value


def test_slots__ambiguous__are_those_that_two_values_share() -> None:
    for table in (SMALL, LARGE):
        for slot in range(0, SLOTS, 7):
            ends = {table.invert_exactly((slot << 112) | rest) for rest in (0, 2**112 - 1)}
            assert (len(ends) > 1) == (table.slots[slot] < DECIDED)


@given(TABLES, st.data())
def test_invert__near_a_threshold__agrees_with_all_128_bits_or_says_that_they_decide(table, data) -> None:  # type: ignore[no-untyped-def]
    threshold = data.draw(st.sampled_from(table.thresholds))
    uniform = threshold + data.draw(st.integers(-(2**66), 2**66))
    uniform = min(max(uniform, 0), (1 << BITS) - 1)
    head = uniform >> 64
    code = int(table.slots[head >> 48])
    if code >= DECIDED:
        return
    assert int(table.words[code - FIRST_CODE]) == head >> 48 << 48
    low = head & ((1 << 48) - 1)
    values, ties = table.invert(np.array([code], dtype=np.int16), np.array([low], dtype=np.uint64))
    if ties:
        assert any(other >> 64 == head for other in table.thresholds)
    else:
        assert values[0] == table.invert_exactly(uniform)


def test_invert_exactly__at_the_ends__stays_in_the_table() -> None:
    assert LARGE.words.size < 4096 < DECIDED - FIRST_CODE
    assert LARGE.invert_exactly(0) <= -13 * 299 and LARGE.invert_exactly((1 << BITS) - 1) >= 13 * 299
    assert abs(LARGE.invert_exactly(0)) < 14 * 300 < -DECIDED
