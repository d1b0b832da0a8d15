# SPDX-License-Identifier: Apache-2.0
"""Folding events: who is in the roster of which round, and who is drawn."""

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import events as chain
from flb import roster
from flb.merkle import keccak256
from flb.types import ZERO_DIGEST, Address, Block, Digest, Round, Seconds
from tests.sim import MemoryRegistry, members, random_digest, rolls_in, small_spec

pytestmark = pytest.mark.unit

D = Digest(b"\x07" * 32)


def place(number: int) -> chain.Place:
    return chain.Place(Block(number, keccak256(number.to_bytes(4, "big"))), 0, D)


def joined(number: int, index: int) -> chain.ChainNodeJoined:
    node = members(8)[index].node
    return chain.ChainNodeJoined(place(number), node, node, node, False)


def started(number: int) -> chain.ChainRunStarted:
    return chain.ChainRunStarted(place(number), D, D, D, Seconds(100))


def test_fold__a_join_in_the_opening_block__counts_from_the_next_round() -> None:
    view = roster.fold([joined(1, 0), joined(5, 1), started(5)])
    assert view.opening is not None
    assert [m.node for m in view.opening.roster] == [members(8)[0].node]
    rolled = chain.ChainRoundRolled(place(6), Round(1), D, D, D, D, D, D, D, 1, 1, Seconds(200))
    view = roster.fold([rolled], view)
    assert view.opening is not None and len(view.opening.roster) == 2 and view.opening.step == 2


def test_fold__leave_remove_and_rejoin() -> None:
    one, two = members(8)[0].node, members(8)[1].node
    leave = chain.ChainNodeLeft(place(2), one)
    remove = chain.ChainNodeRemoved(place(3), two, one)
    view = roster.fold([joined(1, 0), joined(1, 1), leave, remove])
    assert not view.members
    assert set(roster.fold([joined(4, 0)], view).members) == {one}


def test_fold__a_root_registered_twice__counts_once_and_the_first_stands() -> None:
    node = members(8)[0].node
    data = [chain.ChainDatasetRegistered(place(n), node, root, n, size) for n, root, size in
            ((2, D, 10), (3, ZERO_DIGEST, 20), (4, D, 99))]  # fmt: skip
    member = roster.fold([joined(1, 0), *data]).members[node]
    assert (member.dataset_root, member.records) == (ZERO_DIGEST, 20)


def test_fold__dataset_of_a_stranger__is_ignored() -> None:
    data = chain.ChainDatasetRegistered(place(2), members(8)[0].node, D, 1, 10)
    assert not roster.fold([data]).members


def test_fold__void_round__keeps_the_step_and_the_adapter() -> None:
    view = roster.fold([joined(1, 0), started(2), chain.ChainRoundVoided(place(3), Round(1), D, D, Seconds(300))])
    assert view.opening is not None
    assert (view.opening.round, view.opening.step, view.opening.base) == (2, 1, D)


def test_fold__finished__has_no_open_round() -> None:
    rolled = chain.ChainRoundRolled(place(3), Round(1), D, D, D, D, D, D, D, 1, 1, Seconds(200))
    view = roster.fold([joined(1, 0), started(2), rolled, chain.ChainRunFinished(place(3), Round(1), D)])
    assert view.finished and view.opening is None and list(view.openings) == [1]


@given(st.integers(1, 30), st.integers(1, 100), st.integers(1, 6), st.binary(min_size=32, max_size=32))
def test_cohort__any_fraction__has_the_stated_size_and_the_smallest_lots(
    n: int, percent: int, least: int, seed: bytes
) -> None:
    rounds = dataclasses.replace(small_spec().rounds, fraction=percent / 100, min_nodes=least)
    everybody = members(n)
    drawn = roster.cohort(everybody, Digest(seed), rounds)
    exact = -((-Fraction(percent, 100) * n) // 1)
    assert len(drawn) == min(n, max(least, exact))
    assert drawn == tuple(sorted(drawn, key=lambda m: m.node))
    lots = {m.node: keccak256(seed + m.node) for m in everybody}
    left = [lots[m.node] for m in everybody if m not in drawn]
    assert not left or max(lots[m.node] for m in drawn) < min(left)


def test_cohort__seven_percent_of_a_hundred__is_seven() -> None:
    rounds = dataclasses.replace(small_spec().rounds, fraction=0.07, min_nodes=1)
    assert len(roster.cohort(members(1) * 100, D, rounds)) == 7


@pytest.mark.parametrize(("drawn", "least", "expected"), [(3, 2, 2), (3, 3, 3), (4, 2, 3), (6, 2, 4), (1, 2, 2)])
def test_quorum__two_thirds_rounded_up__but_never_below_min_nodes(drawn: int, least: int, expected: int) -> None:
    assert roster.quorum(drawn, least) == expected


def test_roster_root__any_field__changes_it() -> None:
    one, two = members(2)
    roots = {roster.roster_root((dataclasses.replace(one, **change), two)) for change in (
        {}, {"key": Address(b"\x09" * 20)}, {"payee": Address(b"\x09" * 20)}, {"records": 1}, {"dataset_root": D},
    )}  # fmt: skip
    assert len(roots) == 5


def test_memory_registry__the_simulator__follows_the_contract() -> None:
    registry = MemoryRegistry(small_spec(), random_digest())
    for member in members(3):
        registry.join(member)
    registry.start()
    opening = registry.view().opening
    assert opening is not None and len(opening.roster) == 3 and rolls_in(()) == []


def test_fold__new_aggregator__leads_from_the_next_opening_on() -> None:
    one, two = (Address(bytes([n]) * 20) for n in (1, 2))
    before = [chain.ChainAggregatorSet(place(1), one, Round(1)), started(2)]
    view = roster.fold([*before, chain.ChainAggregatorSet(place(3), two, Round(2))])
    assert view.aggregator == one
    view = roster.fold([chain.ChainRoundVoided(place(4), Round(1), D, D, Seconds(300))], view)
    assert view.aggregator == two


def test_fold__rejoin__a_root_registered_again_counts_again() -> None:
    node = members(8)[0].node
    data = [chain.ChainDatasetRegistered(place(n), node, D, n, 10) for n in (2, 5)]
    view = roster.fold([joined(1, 0), data[0], chain.ChainNodeLeft(place(3), node), joined(4, 0), data[1]])
    assert view.members[node].records == 10


def test_cohort__more_members_than_max_cohort__draws_no_more() -> None:
    rounds = dataclasses.replace(small_spec().rounds, max_cohort=5)
    assert len(roster.cohort(members(8), D, rounds)) == 5
