# SPDX-License-Identifier: Apache-2.0
"""The round machine: each path once, then everything at random, with crashes and reorgs."""

import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flb import records, rounds
from flb.roster import draw, quorum
from flb.rounds import Phase
from flb.types import ZERO_DIGEST, Admitted, Digest, Member, Opening, Seconds
from tests.sim import DOMAIN, MemoryRegistry, manifest_for, members, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()
NODES = members(3)


def registry(count: int = 3) -> MemoryRegistry:
    made = MemoryRegistry(SPEC, Digest(b"\x02" * 32))
    for member in NODES[:count]:
        made.join(member)
    made.start()
    return made


def admitted(opening: Opening, member: Member) -> Admitted:
    return Admitted(manifest_for(SPEC, opening, member, member.node), b"\x01" * 65, 100, b"\x02" * 65)


def opened(count: int = 3) -> tuple[rounds.State, MemoryRegistry, Opening]:
    made = registry(count)
    state, _ = rounds.step(rounds.State(SPEC.rounds), rounds.ChainAdvanced(made.view()))
    assert state.opening is not None and state.phase is Phase.INTAKE
    return state, made, state.opening


def take(state: rounds.State, opening: Opening, count: int) -> tuple[rounds.State, tuple[rounds.Effect, ...]]:
    effects: tuple[rounds.Effect, ...] = ()
    for member in opening.cohort[:count]:
        event = rounds.PeerUpdateAdmitted(rounds.name_of(opening), admitted(opening, member))
        state, effects = rounds.step(state, event)
    return state, effects


def tick(state: rounds.State, now: int) -> tuple[rounds.State, tuple[rounds.Effect, ...]]:
    return rounds.step(state, rounds.TimerTicked(Seconds(now)))


def test_step__whole_cohort_in__closes_at_once() -> None:
    state, _, opening = opened()
    state, effects = take(state, opening, 3)
    assert state.phase is Phase.COMBINING
    closing, combine = effects[0], effects[1]
    assert isinstance(closing, rounds.JournalClosing) and isinstance(combine, rounds.Combine)
    assert [a.node for a in combine.closing.admitted] == [m.node for m in NODES]


def test_step__deadline_with_quorum__closes_and_names_late_and_missing() -> None:
    state, _, opening = opened()
    state, _ = take(state, opening, 2)
    begun = rounds.PeerUploadBegun(rounds.name_of(opening), NODES[2].node)
    state, _ = rounds.step(state, begun)
    assert tick(state, opening.deadline - 1)[0].phase is Phase.INTAKE
    state, effects = tick(state, opening.deadline)
    closing = effects[0].fact.closing  # type: ignore[union-attr]
    assert state.phase is Phase.COMBINING and closing.late == (NODES[2].node,) and closing.missing == ()


def test_step__roll_undone_before_anybody_saw_it__is_sent_again() -> None:
    state, made, opening = opened()
    state, _ = tick(state, 950)
    state, _ = take(state, opening, 3)
    roll = roll_for(state, opening)
    state, _ = rounds.step(state, rounds.StepCombined(rounds.name_of(opening), roll, opening.block))
    made.roll(roll)
    made.undo(1)
    state, effects = rounds.step(state, rounds.ChainAdvanced(made.view()))
    assert effects == ()
    assert tick(state, 950 + rounds.RESEND_SECONDS - 1)[1] == ()
    assert tick(state, 950 + rounds.RESEND_SECONDS)[1] == (rounds.SubmitRoll(roll),)


def test_step__below_quorum__waits_for_the_grace_then_expires_once() -> None:
    state, _, opening = opened()
    state, _ = take(state, opening, 1)
    state, effects = tick(state, opening.deadline + 50)
    assert effects == ()
    state, effects = tick(state, opening.deadline + 51)
    assert effects == (rounds.SubmitExpire(opening.round),)
    assert tick(state, opening.deadline + 52)[1] == ()


def test_step__quorum_reached_in_the_grace__still_seals() -> None:
    state, _, opening = opened()
    state, _ = tick(state, opening.deadline + 10)
    state, _ = take(state, opening, 2)
    state, effects = tick(state, opening.deadline + 11)
    assert any(isinstance(effect, rounds.Combine) for effect in effects)


def test_step__second_update_of_a_node__changes_nothing() -> None:
    state, _, opening = opened()
    state, _ = take(state, opening, 1)
    other = Admitted(manifest_for(SPEC, opening, NODES[0], b"other"), b"\x01" * 65, 1, b"\x03" * 65)
    after, effects = rounds.step(state, rounds.PeerUpdateAdmitted(rounds.name_of(opening), other))
    assert after is state and effects == ()


def test_step__update_of_another_opening__changes_nothing() -> None:
    state, _, opening = opened()
    name = (opening.round, Digest(b"\x09" * 32))
    event = rounds.PeerUpdateAdmitted(name, admitted(opening, NODES[0]))
    assert rounds.step(state, event) == (state, ())


def test_step__one_member_and_a_minimum_of_two__is_never_sealed() -> None:
    state, _, opening = opened(1)
    state, effects = take(state, opening, 1)
    assert state.phase is Phase.INTAKE and effects == (rounds.Announce(),)


def test_step__reorg_undoes_a_roll__sends_the_same_roll_again() -> None:
    state, made, opening = opened()
    state, _ = take(state, opening, 3)
    roll = roll_for(state, opening)
    state, effects = rounds.step(state, rounds.StepCombined(rounds.name_of(opening), roll, opening.block))
    assert rounds.SubmitRoll(roll) in effects
    made.roll(roll)
    state, _ = rounds.step(state, rounds.ChainAdvanced(made.view()))
    assert state.phase is Phase.INTAKE and state.opening is not None and state.opening.round == 2
    made.undo(1)
    state, effects = rounds.step(state, rounds.ChainAdvanced(made.view()))
    assert state.phase is Phase.ROLLING and rounds.SubmitRoll(roll) in effects


def test_step__finished__says_so_once() -> None:
    state, made, _ = opened()
    for _ in range(SPEC.rounds.steps):
        view = made.view()
        assert view.opening is not None
        made.roll(roll_for(state, draw(view.opening, SPEC.rounds)))
    state, effects = rounds.step(state, rounds.ChainAdvanced(made.view()))
    assert state.phase is Phase.FINISHED and effects == (rounds.Announce(),)
    assert rounds.step(state, rounds.ChainAdvanced(made.view())) == (state, ())


def roll_for(state: rounds.State, opening: Opening) -> records.Roll:
    work = state.works.get(rounds.name_of(opening), rounds.Work())
    closing = work.closing or records.Closing((), (), ())
    adapter = Digest(hashlib.sha256(b"".join(a.manifest.digest for a in closing.admitted)).digest())
    record = records.make(
        DOMAIN, Digest(b"\x01" * 32), opening, ZERO_DIGEST, closing, adapter, standings=(), round_payout=0
    )
    return records.roll_of(record, records.encode(record))


class Aggregator(RuleBasedStateMachine):
    """The machine between a registry, nodes, a clock, crashes and reorgs; the journal is a list."""

    @initialize()
    def begin(self) -> None:
        self.registry = registry()
        self.journal: list[rounds.Fact] = []
        self.todo: list[rounds.Effect] = []
        self.receipts: dict[tuple[rounds.Name, bytes], bytes] = {}
        self.rolls: dict[rounds.Name, records.Roll] = {}
        self.now = 900
        self.state = rounds.restore(SPEC.rounds, self.journal)
        self.feed(rounds.ChainAdvanced(self.registry.view()))

    def feed(self, event: rounds.Event) -> None:
        state, effects = rounds.step(self.state, event)
        if state is not self.state and isinstance(
            event, rounds.PeerUploadBegun | rounds.PeerUpdateAdmitted | rounds.StepCombined
        ):
            self.journal.append(event)
        self.journal += [effect.fact for effect in effects if isinstance(effect, rounds.JournalClosing)]
        self.state = state
        self.todo += effects

    @rule(index=st.integers(0, 2), whole=st.booleans())
    def upload(self, index: int, whole: bool) -> None:
        opening = self.state.opening
        if opening is None or NODES[index] not in opening.cohort:
            return
        name = rounds.name_of(opening)
        self.feed(rounds.PeerUploadBegun(name, NODES[index].node))
        if whole:
            self.feed(rounds.PeerUpdateAdmitted(name, admitted(opening, NODES[index])))
            held = rounds.work_of(self.state).admitted.get(NODES[index].node)
            if held:
                self.receipts[(name, held.node)] = held.receipt

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        self.now += seconds
        self.registry.now = Seconds(self.now)
        self.feed(rounds.TimerTicked(Seconds(self.now)))

    @rule()
    @precondition(lambda self: self.todo)
    def work(self) -> None:
        effect = self.todo.pop(0)
        match effect:
            case rounds.Combine():
                roll = roll_for(self.state, effect.opening)
                self.feed(rounds.StepCombined(rounds.name_of(effect.opening), roll, effect.opening.block))
            case rounds.SubmitRoll():
                view = self.registry.view()
                if view.opening and view.opening.round == effect.roll.round:
                    self.registry.roll(effect.roll)
            case rounds.SubmitExpire():
                view = self.registry.view()
                if view.opening and view.opening.round == effect.round:
                    self.registry.expire(effect.round)

    @rule()
    def poll(self) -> None:
        self.feed(rounds.ChainAdvanced(self.registry.view()))

    @rule()
    def crash(self) -> None:
        before = self.state.works
        self.todo = []
        self.state = rounds.restore(SPEC.rounds, self.journal)
        assert self.state.works == before
        self.feed(rounds.ChainAdvanced(self.registry.view()))

    @rule(blocks=st.integers(1, 3))
    def reorg(self, blocks: int) -> None:
        rolled = len(self.registry.events) - 7  # three joins, three datasets and the start stay
        if blocks < rolled:
            self.registry.undo(blocks)
            self.feed(rounds.ChainAdvanced(self.registry.view()))

    @invariant()
    def no_receipt_is_broken(self) -> None:
        """What got a receipt is in the journal, and in the closing if its round closed under that opening."""
        for (name, node), receipt in getattr(self, "receipts", {}).items():
            work = self.state.works[name]
            assert work.admitted[node].receipt == receipt
            if work.closing is not None:
                assert node in {a.node for a in work.closing.admitted}

    @invariant()
    def every_closing_has_its_quorum(self) -> None:
        for work in self.state.works.values() if hasattr(self, "state") else ():
            if work.closing is not None:
                assert len(work.closing.admitted) >= quorum(3, SPEC.rounds.min_nodes)

    @invariant()
    def one_roll_an_opening(self) -> None:
        for name, work in self.state.works.items() if hasattr(self, "state") else ():
            if work.roll is not None:
                assert self.rolls.setdefault(name, work.roll) == work.roll

    def teardown(self) -> None:
        """However it went: given all updates and time, the run ends with one adapter a step."""
        if not hasattr(self, "registry"):
            return
        for _ in range(200):
            self.poll()
            if self.state.phase is Phase.FINISHED:
                break
            for index in range(3):
                self.upload(index, True)
            self.wait(rounds.RESEND_SECONDS)
            while self.todo:
                self.work()
        view = self.registry.view()
        assert view.finished and len(view.rolls) == SPEC.rounds.steps


TestAggregator = Aggregator.TestCase
TestAggregator.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAggregator.pytestmark = [pytest.mark.unit]
