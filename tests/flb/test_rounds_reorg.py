# SPDX-License-Identifier: Apache-2.0
"""A reorg that brings an opening back under its name, but in another block: its updates count, its roll does not."""

from dataclasses import replace

import pytest

from flb import rounds
from flb.records import Roll
from flb.roster import RunView
from flb.rounds import Phase
from flb.types import ZERO_DIGEST, Admitted, Block, Digest, Opening, Round, Seconds
from tests.sim import MemoryRegistry, manifest_for, members, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()
NODES = members(3)


def combining() -> tuple[rounds.State, RunView, Opening]:
    """A round whose whole cohort is in, the view that opened it, and its opening."""
    registry = MemoryRegistry(SPEC, Digest(b"\x02" * 32))
    for member in NODES:
        registry.join(member)
    registry.start()
    view = registry.view()
    state, _ = rounds.step(rounds.State(SPEC.rounds), rounds.ChainAdvanced(view))
    assert state.opening is not None
    opening = state.opening
    for member in NODES:
        manifest = manifest_for(SPEC, opening, member, member.node)
        admitted = Admitted(manifest, b"\x01" * 65, 100, b"\x02" * 65)
        state, _ = rounds.step(state, rounds.PeerUpdateAdmitted(rounds.name_of(opening), admitted))
    assert state.phase is Phase.COMBINING
    return state, view, opening


def elsewhere(view: RunView) -> RunView:
    """The same round and seed in another block with another deadline."""
    assert view.opening is not None
    block = Block(view.opening.block.number, Digest(b"\x0e" * 32))
    return replace(view, opening=replace(view.opening, block=block, deadline=Seconds(view.opening.deadline + 1)))


def combined(opening: Opening, mark: bytes) -> rounds.StepCombined:
    """What combining reports; `mark` tells one record from another."""
    roll = Roll(Round(1), Digest(mark * 32), *(ZERO_DIGEST,) * 4, accepted=3, weight_sum=300)
    return rounds.StepCombined(rounds.name_of(opening), roll, opening.block)


def test_step__opening_came_back_in_another_block__combines_again_and_sends_the_new_roll() -> None:
    state, view, opening = combining()
    stale = combined(opening, b"\x01")
    state, effects = rounds.step(state, stale)
    assert rounds.SubmitRoll(stale.roll) in effects
    state, effects = rounds.step(state, rounds.ChainAdvanced(elsewhere(view)))
    assert state.phase is Phase.COMBINING and state.opening is not None
    assert isinstance(effects[0], rounds.Combine) and effects[0].opening == state.opening != opening
    fresh = combined(state.opening, b"\x03")
    state, effects = rounds.step(state, fresh)
    assert rounds.SubmitRoll(fresh.roll) in effects and rounds.work_of(state).roll == fresh.roll


def test_step__opening_came_back_while_combining__the_older_roll_is_dropped() -> None:
    state, view, opening = combining()
    state, _ = rounds.step(state, rounds.ChainAdvanced(elsewhere(view)))
    assert rounds.step(state, combined(opening, b"\x01")) == (state, ())


def test_restore__journal_with_a_roll_of_another_block__combines_again() -> None:
    state, view, opening = combining()
    closing = rounds.work_of(state).closing
    assert closing is not None
    facts = [rounds.IntakeClosed(rounds.name_of(opening), closing), combined(opening, b"\x01")]
    for now, phase in ((view, Phase.ROLLING), (elsewhere(view), Phase.COMBINING)):
        state, _ = rounds.step(rounds.restore(SPEC.rounds, facts), rounds.ChainAdvanced(now))
        assert state.phase is phase
