# SPDX-License-Identifier: Apache-2.0
"""The registry in memory refuses what the contract refuses, and gives the same events for the same calls."""

import dataclasses

import pytest

from flb import identity
from flb.errors import ContractRefused
from flb.memory_registry import AGGREGATOR_KEY, MemoryRegistry
from flb.records import Roll
from flb.types import ZERO_DIGEST, Digest, Round, Seconds
from tests.sim import members, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec(steps=2)
ADAPTER = Digest(b"\x02" * 32)


def started(salt: bytes = b"") -> MemoryRegistry:
    made = MemoryRegistry(SPEC, ADAPTER, salt=salt)
    for member in members(3):
        made.join(member)
    made.start()
    return made


def roll(number: int, adapter: bytes = b"\x03" * 32) -> Roll:
    return Roll(Round(number), ZERO_DIGEST, Digest(adapter), *(ZERO_DIGEST,) * 3, accepted=3, weight_sum=300)


def test_start__members__are_in_the_first_opening() -> None:
    view = started().view()
    assert view.opening is not None and view.opening.roster == members(3) and view.opening.base == ADAPTER
    assert view.aggregator == identity.address_of(AGGREGATOR_KEY)
    assert view.opening.deadline == Seconds(900 + SPEC.rounds.round_seconds)


def test_roll__every_step__ends_the_run() -> None:
    registry = started()
    registry.roll(roll(1))
    assert not registry.view().finished
    registry.roll(roll(2, b"\x04" * 32))
    view = registry.view()
    assert view.finished and view.adapter == b"\x04" * 32 and [rolled.round for rolled in view.rolls] == [1, 2]


@pytest.mark.parametrize("number", [0, 2])
def test_roll_and_expire__another_round__are_refused(number: int) -> None:
    registry = started()
    before = list(registry.events)
    for call in (lambda: registry.roll(roll(number)), lambda: registry.expire(Round(number))):
        with pytest.raises(ContractRefused, match=rf"FLBWrongRound\({number}, 1\)"):
            call()
    assert registry.events == before


def test_expire__open_round__opens_the_next_with_the_same_adapter() -> None:
    registry = started()
    registry.expire(Round(1))
    opened = registry.view().opening
    assert opened is not None and (opened.round, opened.step, opened.base) == (2, 1, ADAPTER)


def test_events__same_calls__are_the_same_and_depend_on_the_salt() -> None:
    one, two, other = started(), started(), started(b"x")
    assert one.events == two.events
    seeds = [made.view().opening.seed for made in (one, other) if made.view().opening]  # type: ignore[union-attr]
    assert len(set(seeds)) == 2


def test_undo__blocks__come_again_with_other_hashes() -> None:
    registry = started()
    registry.roll(roll(1))
    before = registry.events[-1].place.block
    registry.undo(1)
    registry.roll(roll(1))
    after = registry.events[-1].place.block
    assert after.number == before.number and after.hash != before.hash


def test_view__unconfirmed_blocks__are_at_the_head_alone() -> None:
    registry = dataclasses.replace(started(), unconfirmed=1)
    assert registry.view().opening is None and registry.head().opening is not None
