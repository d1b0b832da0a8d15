# SPDX-License-Identifier: Apache-2.0
"""The aggregator's round as a pure machine: `step(state, event) -> (state, effects)`.

Facts come in with a prefix that says from where (`Chain`, `Peer`, `Timer`, `Step`), effects go out as imperatives.
The shell writes the fact into its journal, then carries out the effects; every effect is idempotent by round and
seed. What was journaled is kept under (round, seed), the name of an opening. So a restart and a reorg are the same
thing: `ChainAdvanced` names the opening that holds now, and the machine goes on from what is kept for it. A reorg can
give the same name another block and deadline, which the record states: then its updates count, its roll does not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from flb.records import Closing, Roll
from flb.roster import RunView, draw, quorum
from flb.spec import RoundSpec
from flb.types import Address, Admitted, Block, Digest, Opening, Round, Seconds

KEPT = 64
"""Openings whose work is remembered: as many as the contract's ring holds."""

RESEND_SECONDS = 30
"""A transaction whose effect the chain does not show after this long is sent again: a reorg may have undone it."""

Name = tuple[Round, Digest]
"""Round and seed name an opening."""


class Phase(StrEnum):
    """Where the open round is."""

    WAITING = "waiting"
    INTAKE = "intake"
    COMBINING = "combining"
    ROLLING = "rolling"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Work:
    """What is known of one opening. The fields fill from top to bottom and are never emptied; the newest roll counts."""

    begun: frozenset[Address] = frozenset()
    admitted: Mapping[Address, Admitted] = field(default_factory=dict)
    closing: Closing | None = None
    roll: Roll | None = None
    opened_at: Block | None = None
    """Where the opening stood when the roll was made."""


@dataclass(frozen=True, slots=True)
class State:
    """The machine's state; `works` is what the journal holds."""

    rounds: RoundSpec
    phase: Phase = Phase.WAITING
    opening: Opening | None = None
    works: Mapping[Name, Work] = field(default_factory=dict)
    now: Seconds = Seconds(0)
    """As of the last tick."""
    sent_at: Seconds | None = None
    """When the transaction that ends the open round was last sent."""


# --- what happens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainAdvanced:
    """The chain was read; `view` is what holds now, after a reorg too."""

    view: RunView


@dataclass(frozen=True, slots=True)
class PeerUploadBegun:
    """A node whose manifest passed began to send."""

    name: Name
    node: Address


@dataclass(frozen=True, slots=True)
class PeerUpdateAdmitted:
    """An update passed every check; its bytes are on disk."""

    name: Name
    admitted: Admitted


@dataclass(frozen=True, slots=True)
class TimerTicked:
    """It is `now`, Unix seconds."""

    now: Seconds


@dataclass(frozen=True, slots=True)
class IntakeClosed:
    """The machine's own decision, as the journal brings it back."""

    name: Name
    closing: Closing


@dataclass(frozen=True, slots=True)
class StepCombined:
    """The new adapter and the record blob are on disk; `roll` seals them, for the opening in block `opened_at`."""

    name: Name
    roll: Roll
    opened_at: Block


Event = ChainAdvanced | PeerUploadBegun | PeerUpdateAdmitted | TimerTicked | IntakeClosed | StepCombined
Fact = PeerUploadBegun | PeerUpdateAdmitted | IntakeClosed | StepCombined
"""Events that the chain does not hold: the journal must."""


# --- what must be done -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JournalClosing:
    """Write the closing down before anything else."""

    fact: IntakeClosed


@dataclass(frozen=True, slots=True)
class Combine:
    """Aggregate the closing, publish the adapter, write the record, report `StepCombined`."""

    opening: Opening
    closing: Closing


@dataclass(frozen=True, slots=True)
class SubmitRoll:
    """Send the roll to the contract."""

    roll: Roll


@dataclass(frozen=True, slots=True)
class SubmitExpire:
    """Void the round."""

    round: Round


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the watchers that something changed."""


Effect = JournalClosing | Combine | SubmitRoll | SubmitExpire | Announce
Result = tuple[State, tuple[Effect, ...]]


# --- the machine -------------------------------------------------------------------------------------------------


def name_of(opening: Opening) -> Name:
    """Round and seed."""
    return (opening.round, opening.seed)


def work_of(state: State) -> Work:
    """What is known of the open round."""
    return state.works.get(name_of(state.opening), Work()) if state.opening else Work()


def restore(rounds: RoundSpec, facts: Iterable[Fact]) -> State:
    """The state that a journal leads to, before the chain was read. No effects: `ChainAdvanced` brings them."""
    state = State(rounds)
    for fact in facts:
        state = _keep(state, fact)
    return state


def step(state: State, event: Event) -> Result:
    """One transition. Events about an opening that does not hold any more are kept, and change nothing else."""
    match event:
        case ChainAdvanced():
            return _advance(state, event.view)
        case TimerTicked():
            return _tick(state, event.now)
        case PeerUploadBegun() | PeerUpdateAdmitted():
            if state.phase is not Phase.INTAKE or state.opening is None or event.name != name_of(state.opening):
                return state, ()
            if _known(work_of(state), event):
                return state, ()
            state, effects = _close_if_complete(_keep(state, event))
            return state, effects or (Announce(),)
        case IntakeClosed():
            return _keep(state, event), ()
        case StepCombined():
            opening = state.opening
            if opening is None or event.name != name_of(opening):
                return _keep(state, event), ()
            if event.opened_at != opening.block:
                return state, ()  # its record states a block that is gone; the round is being combined again
            state = _keep(state, event)
            return _send(replace(state, phase=Phase.ROLLING), SubmitRoll(event.roll), Announce())


def _known(work: Work, event: PeerUploadBegun | PeerUpdateAdmitted) -> bool:
    """Whether a fact of a peer says nothing new; the first committed update of a node wins."""
    if isinstance(event, PeerUploadBegun):
        return event.node in work.begun
    return event.admitted.node in work.admitted


def _keep(state: State, fact: Fact) -> State:
    work = state.works.get(fact.name, Work())
    match fact:
        case PeerUploadBegun():
            work = replace(work, begun=work.begun | {fact.node})
        case PeerUpdateAdmitted():
            # the first committed wins: a second one for the same node changes nothing
            work = replace(work, admitted={fact.admitted.node: fact.admitted, **work.admitted})
        case IntakeClosed():
            work = replace(work, closing=work.closing or fact.closing)
        case StepCombined():
            work = replace(work, roll=fact.roll, opened_at=fact.opened_at)
    works = {**state.works, fact.name: work}
    if len(works) > KEPT:
        del works[min(works)]
    return replace(state, works=works)


def _advance(state: State, view: RunView) -> Result:
    """Take the opening that holds now and go on from what is kept for it."""
    if view.finished:
        if state.phase is Phase.FINISHED:
            return state, ()
        return replace(state, phase=Phase.FINISHED, opening=None), (Announce(),)
    if view.opening is None:
        return replace(state, phase=Phase.WAITING, opening=None), ()
    opening = draw(view.opening, state.rounds)
    if state.opening == opening:
        return state, ()
    state = replace(state, opening=opening, sent_at=None)
    work = work_of(state)
    if work.roll is not None and work.opened_at == opening.block:
        return _send(replace(state, phase=Phase.ROLLING), SubmitRoll(work.roll), Announce())
    if work.closing is not None:
        return replace(state, phase=Phase.COMBINING), (Combine(opening, work.closing), Announce())
    state, effects = _close_if_complete(replace(state, phase=Phase.INTAKE))
    return state, effects or (Announce(),)


def _send(state: State, *effects: Effect) -> Result:
    return replace(state, sent_at=state.now), effects


def _tick(state: State, now: Seconds) -> Result:
    state, opening, work = replace(state, now=now), state.opening, work_of(state)
    due = state.sent_at is None or now >= state.sent_at + RESEND_SECONDS
    if opening is None:
        return state, ()
    if state.phase is Phase.ROLLING and work.roll is not None and due:
        return _send(state, SubmitRoll(work.roll))
    if state.phase is not Phase.INTAKE or now < opening.deadline:
        return state, ()
    if len(work.admitted) >= quorum(len(opening.cohort), state.rounds.min_nodes):
        return _close(state, opening)
    if now > opening.deadline + state.rounds.grace_seconds and due:
        return _send(state, SubmitExpire(opening.round))
    return state, ()


def _close_if_complete(state: State) -> Result:
    """Close intake as soon as every cohort member is in; an opening with too few members waits for its grace."""
    opening = state.opening
    if opening is None:
        return state, ()
    complete = set(work_of(state).admitted) >= {member.node for member in opening.cohort}
    if not complete or len(opening.cohort) < quorum(len(opening.cohort), state.rounds.min_nodes):
        return state, ()
    return _close(state, opening)


def _close(state: State, opening: Opening) -> Result:
    work = work_of(state)
    cohort = [member.node for member in opening.cohort]
    closing = Closing(
        admitted=tuple(work.admitted[node] for node in cohort if node in work.admitted),
        late=tuple(node for node in cohort if node in work.begun and node not in work.admitted),
        missing=tuple(node for node in cohort if node not in work.begun and node not in work.admitted),
    )
    fact = IntakeClosed(name_of(opening), closing)
    state = replace(_keep(state, fact), phase=Phase.COMBINING)
    return state, (JournalClosing(fact), Combine(opening, closing), Announce())
