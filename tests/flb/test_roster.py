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


def registered(number: int, root: Digest, records: int) -> chain.ChainDatasetRegistered:
    return chain.ChainDatasetRegistered(place(number), members(8)[0].node, root, number, records)


def revoked(number: int, root: Digest) -> chain.ChainDatasetRevoked:
    return chain.ChainDatasetRevoked(place(number), members(8)[0].node, root)


E = Digest(b"\x08" * 32)


def test_fold__newest_dataset_revoked__the_one_before_takes_its_place() -> None:
    node = members(8)[0].node
    view = roster.fold([joined(1, 0), registered(2, D, 10), registered(3, E, 20), revoked(4, E)])
    assert (view.members[node].dataset_root, view.members[node].records) == (D, 10)
    assert view.datasets == {node: {D: 10}}
    view = roster.fold([revoked(5, D)], view)
    assert (view.members[node].dataset_root, view.members[node].records) == (ZERO_DIGEST, 0)
    assert view.datasets == {}


def test_fold__older_or_unknown_dataset_revoked__the_newest_stays() -> None:
    node = members(8)[0].node
    events = [joined(1, 0), registered(2, D, 10), registered(3, E, 20), revoked(4, D), revoked(5, ZERO_DIGEST)]
    assert roster.fold(events).members[node].records == 20


def test_fold__key_and_payee_changed__the_member_has_them_from_the_next_opening_on() -> None:
    node, key, payee = members(8)[0].node, Address(b"\x0a" * 20), Address(b"\x0b" * 20)
    changes = [chain.ChainKeyRotated(place(3), node, key), chain.ChainPayeeSet(place(3), node, payee)]
    before = [joined(1, 0), chain.ChainRunStarted(place(2), D, D, D, Seconds(100))]
    rolled = chain.ChainRoundRolled(place(3), Round(1), D, D, D, D, D, D, D, 1, 1, Seconds(200))
    view = roster.fold([*before, *changes, rolled])
    assert view.opening is not None and view.opening.roster[0].key == node
    assert (view.members[node].key, view.members[node].payee) == (key, payee)
    left = roster.fold([chain.ChainNodeLeft(place(4), node), *changes], view)
    assert left.members == {}


def test_fold__payouts__are_the_newest_root_the_cancelled_rounds_and_the_sums() -> None:
    node = members(8)[0].node
    view = roster.fold([
        chain.ChainPayoutActivated(place(1), Round(1), D),
        chain.ChainClaimed(place(2), node, node, 5),
        chain.ChainPayoutCancelled(place(3), Round(2)),
        chain.ChainPayoutActivated(place(4), Round(3), E),
        chain.ChainClaimed(place(5), node, node, 2**200),
        chain.ChainRelaySkipped(place(6), 0, node, b"\x01\x02\x03\x04"),
        chain.ChainAdmitterSet(place(7), node),
    ])  # fmt: skip
    assert (view.payout_round, view.payout_root, view.cancelled) == (3, E, {2})
    assert view.claimed == {node: 5 + 2**200}


def events_of_few() -> st.SearchStrategy[list[chain.ChainEvent]]:
    """Runs of three nodes and two datasets, several events a block."""
    nodes, roots = st.sampled_from([m.node for m in members(3)]), st.sampled_from([D, E])
    steps = st.integers(0, 1).map(place)
    one = st.one_of(
        st.builds(chain.ChainNodeJoined, steps, nodes, nodes, nodes, st.just(False)),
        st.builds(chain.ChainNodeLeft, steps, nodes),
        st.builds(chain.ChainKeyRotated, steps, nodes, nodes),
        st.builds(chain.ChainDatasetRegistered, steps, nodes, roots, st.just(1), st.integers(1, 9)),
        st.builds(chain.ChainDatasetRevoked, steps, nodes, roots),
        st.builds(chain.ChainRoundVoided, steps, st.just(Round(1)), roots, roots, st.just(Seconds(1))),
        st.builds(chain.ChainClaimed, steps, nodes, nodes, st.integers(1, 9)),
    )
    return st.lists(one, max_size=30).map(in_blocks)


def in_blocks(events: list[chain.ChainEvent]) -> list[chain.ChainEvent]:
    number, placed = 0, []
    for event in events:
        number += event.place.block.number
        placed.append(dataclasses.replace(event, place=place(number)))
    return placed


@given(events_of_few(), st.integers(0, 30))
def test_fold__in_two_parts_or_one_by_one__is_the_same_and_changes_no_view(
    events: list[chain.ChainEvent], cut: int
) -> None:
    first = roster.fold(events[:cut])
    copy = repr(first)
    whole = roster.fold(events)
    assert roster.fold(events[cut:], first) == whole
    assert repr(first) == copy
    view = roster.RunView()
    for event in events:
        view = roster.apply(view, event)
    assert view == whole


@given(events_of_few())
def test_fold__every_roster__is_the_membership_before_its_block(events: list[chain.ChainEvent]) -> None:
    for index, event in enumerate(events):
        if isinstance(event, chain.ChainRoundVoided):
            before = roster.fold(e for e in events[:index] if e.place.block.number < event.place.block.number)
            opening = roster.apply(roster.fold(events[:index]), event).opening
            assert opening is not None
            assert opening.roster == tuple(sorted(before.members.values(), key=lambda m: m.node))


def test_fold__view__keeps_what_the_newest_block_changed_alone() -> None:
    one, two = members(8)[0].node, members(8)[1].node
    view = roster.fold([joined(1, 0), joined(2, 1), chain.ChainNodeLeft(place(2), one)])
    assert (view.before.keys(), view.before[two]) == ({one, two}, None)
    member = view.before[one]
    assert member is not None and member.node == one
    assert roster.fold([chain.ChainClaimed(place(3), two, two, 1)], view).before == {}


def test_fold__openings_without_a_change_between_them__share_one_roster() -> None:
    voids = [chain.ChainRoundVoided(place(n), Round(n), D, D, Seconds(1)) for n in range(3, 6)]
    view = roster.fold([voids[2]], roster.fold([joined(1, 0), started(2), *voids[:2]]))
    assert len({id(opened.roster) for opened in view.openings.values()}) == 1
