# SPDX-License-Identifier: Apache-2.0
"""Fees bear full blocks, and a replacement is one for every node."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.chain.fees import CEILING, MOST_TIP, Fees, market, raised

pytestmark = pytest.mark.unit

WEI = st.integers(0, 10**13)


@given(st.builds(Fees, WEI, WEI), st.integers(0, 10**12))
def test_raised__any_fees__are_an_eighth_higher_and_no_less_than_the_market(old: Fees, base_fee: int) -> None:
    asked = market(base_fee)
    new = raised(old, asked)
    if new is None:
        assert old.most * 9 > 8 * (CEILING * asked.most - 1) or old.tip * 9 > 8 * (CEILING * asked.tip - 1)
        return
    assert new.most * 8 >= old.most * 9 and new.tip * 8 >= old.tip * 9
    assert new.most >= asked.most and new.tip >= asked.tip
    assert new.most <= max(asked.most, old.most * 9 // 8 + 1)


@given(st.integers(0, 10**12), st.integers(0, 10**13))
def test_market__suggested_tip__is_taken_within_bounds(base_fee: int, suggested: int) -> None:
    fees = market(base_fee, suggested)
    assert fees.tip == min(max(suggested, 1), MOST_TIP) and fees.most == 2 * base_fee + fees.tip
    more = raised(fees, fees)
    assert more is not None and more.tip > fees.tip


def test_raised__stuck_for_ever__stops_at_ten_times_the_market() -> None:
    asked = market(10**9)
    fees, raises = asked, 0
    while (new := raised(fees, asked)) is not None:
        fees, raises = new, raises + 1
    assert raises == 19
    assert 8 * asked.tip < fees.tip <= CEILING * asked.tip and fees.most <= CEILING * asked.most


@given(st.integers(0, 10**12))
def test_market__five_full_blocks__still_cover_the_base_fee(base_fee: int) -> None:
    grown = base_fee
    for _ in range(5):
        grown += grown // 8
    assert market(base_fee).most - market(base_fee).tip >= grown
