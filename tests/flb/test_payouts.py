# SPDX-License-Identifier: Apache-2.0
"""Splits and standings: never more than the payout, never less than before, whoever comes and goes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import payouts, standard_tree
from flb.errors import BadMessage
from flb.payouts import Standing
from flb.types import ZERO_DIGEST, Address

pytestmark = pytest.mark.unit

NODES = [Address(bytes([number]) * 20) for number in range(1, 8)]
SCORES = st.dictionaries(st.sampled_from(NODES), st.integers(0, 2**65), max_size=7)
A, B, C = NODES[:3]


@given(st.integers(0, 2**255), SCORES)
def test_split__any_scores__sums_to_at_most_the_payout(payout: int, scores: dict[Address, int]) -> None:
    earned = payouts.split(payout, scores)
    assert earned.keys() == scores.keys()
    left = payout - sum(earned.values())
    assert left == payout if not any(scores.values()) else 0 <= left < len(scores)


@given(st.integers(0, 2**200), SCORES)
def test_split__higher_score__never_earns_less(payout: int, scores: dict[Address, int]) -> None:
    earned = payouts.split(payout, scores)
    ranked = sorted(scores, key=lambda node: scores[node])
    assert all(earned[low] <= earned[high] for low, high in pairwise(ranked))


@given(st.integers(0, 2**100), st.lists(SCORES, max_size=6))
def test_after__any_rounds__only_grow_and_stay_below_what_the_rounds_pay(
    payout: int, rounds: list[dict[Address, int]]
) -> None:
    table: tuple[Standing, ...] = ()
    for number, scores in enumerate(rounds, 1):
        before = {row.node: row for row in table}
        table = payouts.after(table, scores, payout)
        assert [row.node for row in table] == sorted(before.keys() | scores.keys())
        for row in table:
            old = before.get(row.node, Standing(row.node, 0, 0, 0))
            assert row.score == scores.get(row.node, 0)
            assert row.total == old.total + row.score and row.payout >= old.payout
        assert sum(row.payout for row in table) <= payout * number


def test_after__node_that_left__keeps_what_it_earned() -> None:
    first = payouts.after((), {A: 3, B: 1}, 100)
    assert first == (Standing(A, 3, 3, 75), Standing(B, 1, 1, 25))
    assert payouts.after(first, {B: 1, C: 2}, 100) == (
        Standing(A, 0, 3, 75), Standing(B, 1, 2, 58), Standing(C, 2, 2, 66),
    )  # fmt: skip


def test_after__table_that_no_run_leads_to__is_refused() -> None:
    full = (Standing(A, 0, 1, standard_tree.UINT256 - 1),)
    with pytest.raises(BadMessage, match="does not fit 256 bits"):
        payouts.after(full, {A: 1}, 1)


def test_roots__of_a_table__are_those_of_its_columns() -> None:
    table = payouts.after((), {A: 3, B: 1}, 100)
    assert payouts.scores_tree(table).root == standard_tree.root([(A, 3), (B, 1)])
    assert payouts.payout_root(table, 100) == standard_tree.root([(A, 75), (B, 25)])
    assert payouts.payout_root(table, 0) == ZERO_DIGEST
