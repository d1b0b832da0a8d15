# SPDX-License-Identifier: Apache-2.0
"""The registry's events folded into a view: members, the open round, what was sealed, who leads, where to call.

Pure and cheap, so everyone who reads the same chain has the same roster, the same cohort and the same step. A reorg
is not undone here: the reader folds again from the deploy block.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from flb import events as chain
from flb.events import ChainEvent
from flb.merkle import keccak256, leaf, root
from flb.spec import RoundSpec
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Block, Digest, Member, Opening, Round, Seconds, Step


@dataclass(frozen=True, slots=True)
class OpenRound:
    """An opening before the cohort is drawn from it."""

    round: Round
    step: Step
    seed: Digest
    deadline: Seconds
    base: Digest
    previous: Digest
    block: Block
    roster: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """What the events say so far. `settled` is the membership at the end of the block before `block_number`."""

    spec: Digest = ZERO_DIGEST
    adapter: Digest = ZERO_DIGEST
    """The newest adapter: adapter 0 before the first seal."""
    members: Mapping[Address, Member] = field(default_factory=dict)
    settled: Mapping[Address, Member] = field(default_factory=dict)
    datasets: Mapping[Address, Mapping[Digest, int]] = field(default_factory=dict)
    """The roots that count for a member, with their records, in the order of registration."""
    block_number: int = -1
    opening: OpenRound | None = None
    rolls: tuple[chain.ChainRoundRolled, ...] = ()
    openings: Mapping[Round, OpenRound] = field(default_factory=dict)
    """Every round that was opened, the open one included."""
    finished: bool = False
    last: Round | None = None
    """The round that the owner made the last one."""
    aggregator: Address = ZERO_ADDRESS
    next_aggregator: Address | None = None
    """Leads from the next opening on."""
    uri: str = ""
    cert_digest: Digest = ZERO_DIGEST
    next_cert_digest: Digest = ZERO_DIGEST
    admitter: Address = ZERO_ADDRESS
    """The last one that an event named; zero before that."""
    payout_round: Round = Round(0)
    """The newest round whose payout root is active; 0 for none."""
    payout_root: Digest = ZERO_DIGEST
    cancelled: frozenset[Round] = frozenset()
    """Rounds whose payout root the owner cancelled."""
    claimed: Mapping[Address, int] = field(default_factory=dict)
    """What was paid for each node so far, in the token's smallest unit."""


@dataclass(slots=True)
class _Fold:
    """The inside of one fold: containers that belong to it alone, so an event costs what it changes, not a copy."""

    view: RunView
    """The fields that are replaced whole."""
    members: dict[Address, Member]
    before: dict[Address, Member | None]
    """What stood for the members that this block changed; None for those that it brought."""
    datasets: dict[Address, dict[Digest, int]]
    own: set[Address]
    """Whose inner dict of `datasets` was copied in this fold."""
    rolls: list[chain.ChainRoundRolled]
    openings: dict[Round, OpenRound]
    claimed: dict[Address, int]
    roster: tuple[Member, ...] | None
    """The sorted membership before this block, once it was needed."""
    block_number: int


def fold(events: Iterable[ChainEvent], view: RunView | None = None) -> RunView:
    """Apply events, in the order of the chain, to `view`, which stays as it is. Linear in events and members."""
    view = view or RunView()
    inner: _Fold | None = None
    for event in events:
        inner = inner or _thaw(view)
        _apply(inner, event)
    return view if inner is None else _freeze(inner)


def apply(view: RunView, event: ChainEvent) -> RunView:
    """Apply one event."""
    return fold((event,), view)


def _thaw(view: RunView) -> _Fold:
    names = view.members.keys() | view.settled.keys() if view.settled is not view.members else ()
    before = {n: view.settled.get(n) for n in names if view.settled.get(n) is not view.members.get(n)}
    return _Fold(
        view=view,
        members=dict(view.members),
        before=before,
        datasets=dict(view.datasets),  # type: ignore[arg-type]  # an inner dict is copied before it is changed
        own=set(),
        rolls=list(view.rolls),
        openings=dict(view.openings),
        claimed=dict(view.claimed),
        roster=None,
        block_number=view.block_number,
    )


def _freeze(inner: _Fold) -> RunView:
    settled = inner.members
    if inner.before:
        settled = {**inner.members, **{n: member for n, member in inner.before.items() if member is not None}}
        for node in [n for n, member in inner.before.items() if member is None]:
            settled.pop(node, None)
    return replace(
        inner.view,
        members=inner.members,
        settled=settled,
        datasets=inner.datasets,
        block_number=inner.block_number,
        rolls=tuple(inner.rolls),
        openings=inner.openings,
        claimed=inner.claimed,
    )


def _apply(inner: _Fold, event: ChainEvent) -> None:
    number = event.place.block.number
    if number != inner.block_number:
        inner.block_number = number
        if inner.before:
            inner.before, inner.roster = {}, None
    view = inner.view
    match event:
        case chain.ChainRunStarted():
            inner.view = replace(view, spec=event.spec, adapter=event.adapter_digest)
            _open(inner, Round(1), event, ZERO_DIGEST)
        case chain.ChainRoundRolled():
            inner.view = replace(view, adapter=event.adapter_digest)
            inner.rolls.append(event)
            _open(inner, Round(event.round + 1), event, event.record_hash)
        case chain.ChainRoundVoided():
            _open(inner, Round(event.round + 1), event, event.record_hash)
        case chain.ChainRunFinished():
            for later in [number for number in inner.openings if number > event.round]:
                del inner.openings[later]
            inner.view = replace(view, opening=None, finished=True)
        case chain.ChainRunFinishing():
            inner.view = replace(view, last=event.round)
        case chain.ChainAggregatorSet():
            leads = {"aggregator" if view.opening is None else "next_aggregator": event.aggregator}
            inner.view = replace(view, **leads)  # type: ignore[arg-type]
        case chain.ChainEndpointSet():
            inner.view = replace(
                view, uri=event.uri, cert_digest=event.cert_digest, next_cert_digest=event.next_cert_digest
            )
        case chain.ChainAdmitterSet():
            inner.view = replace(view, admitter=event.admitter)
        case chain.ChainPayoutActivated():
            inner.view = replace(view, payout_round=event.round, payout_root=event.root)
        case chain.ChainPayoutCancelled():
            inner.view = replace(view, cancelled=view.cancelled | {event.round})
        case chain.ChainClaimed():
            inner.claimed[event.node] = inner.claimed.get(event.node, 0) + event.amount
        case chain.ChainRelaySkipped():
            pass  # it says that nothing happened
        case _:
            _apply_membership(inner, event)


def _apply_membership(inner: _Fold, event: ChainEvent) -> None:
    match event:
        case chain.ChainNodeJoined():
            _put(inner, event.node, Member(event.node, event.key, event.payee))
        case chain.ChainNodeLeft() | chain.ChainNodeRemoved():
            _put(inner, event.node, None)
            inner.datasets.pop(event.node, None)
        case chain.ChainKeyRotated():
            if (member := inner.members.get(event.node)) is not None:
                _put(inner, event.node, replace(member, key=event.key))
        case chain.ChainPayeeSet():  # of a node that left, too: it says so again when it joins
            if (member := inner.members.get(event.node)) is not None:
                _put(inner, event.node, replace(member, payee=event.payee))
        case chain.ChainDatasetRegistered():
            member = inner.members.get(event.node)
            if member is not None and event.root not in inner.datasets.get(event.node, {}):
                # a root counts once for a node: the first event wins
                _datasets(inner, event.node)[event.root] = event.records
                _put(inner, event.node, replace(member, dataset_root=event.root, records=event.records))
        case chain.ChainDatasetRevoked():
            member = inner.members.get(event.node)
            if member is not None and event.root in inner.datasets.get(event.node, {}):
                held = _datasets(inner, event.node)
                del held[event.root]
                root, records = next(reversed(held.items()), (ZERO_DIGEST, 0))
                _put(inner, event.node, replace(member, dataset_root=root, records=records))
                if not held:
                    del inner.datasets[event.node]


def _put(inner: _Fold, node: Address, member: Member | None) -> None:
    """Set or delete a member; what stood before this block is kept for `settled`."""
    inner.before.setdefault(node, inner.members.get(node))
    if member is None:
        inner.members.pop(node, None)
    else:
        inner.members[node] = member


def _datasets(inner: _Fold, node: Address) -> dict[Digest, int]:
    """The node's datasets, to be changed."""
    if node not in inner.own:
        inner.own.add(node)
        inner.datasets[node] = dict(inner.datasets.get(node, {}))
    return inner.datasets.setdefault(node, {})


def _open(
    inner: _Fold,
    number: Round,
    event: chain.ChainRunStarted | chain.ChainRoundRolled | chain.ChainRoundVoided,
    previous: Digest,
) -> None:
    view = inner.view
    step = Step(len(inner.rolls) + 1)
    roster = _roster(inner)
    opened = OpenRound(number, step, event.seed, event.deadline, view.adapter, previous, event.place.block, roster)
    inner.openings[number] = opened
    inner.view = replace(view, opening=opened, aggregator=view.next_aggregator or view.aggregator, next_aggregator=None)


def _roster(inner: _Fold) -> tuple[Member, ...]:
    """The members before this block, by address; the tuple of the opening before if nothing changed, for memory."""
    if inner.roster is None:
        now = {**inner.members, **inner.before}
        inner.roster = tuple(now[node] for node in sorted(now) if now[node] is not None)  # type: ignore[misc]
        if inner.view.opening is not None and inner.view.opening.roster == inner.roster:
            inner.roster = inner.view.opening.roster
    return inner.roster


def cohort(roster: tuple[Member, ...], seed: Digest, rounds: RoundSpec) -> tuple[Member, ...]:
    """The min(n, max_cohort, max(minNodes, ⌈fraction·n⌉)) members with the smallest keccak256(seed ‖ node), by address.

    The fraction is the spec's decimal, taken exactly: a float product would draw 8 of 100 for 0.07.
    """
    drawn = max(rounds.min_nodes, math.ceil(Fraction(repr(rounds.fraction)) * len(roster)))
    drawn = min(drawn, rounds.max_cohort)
    by_lot = sorted(roster, key=lambda member: keccak256(seed + member.node))
    return tuple(sorted(by_lot[:drawn], key=lambda member: member.node))


def quorum(drawn: int, min_nodes: int) -> int:
    """max(minNodes, ⌈2/3 · cohort⌉): fewer updates make no adapter."""
    return max(min_nodes, (2 * drawn + 2) // 3)


def draw(opened: OpenRound, rounds: RoundSpec) -> Opening:
    """The opening with its cohort."""
    return Opening(
        round=opened.round,
        step=opened.step,
        seed=opened.seed,
        deadline=opened.deadline,
        base=opened.base,
        previous=opened.previous,
        block=opened.block,
        cohort=cohort(opened.roster, opened.seed, rounds),
        roster=opened.roster,
    )


def roster_root(roster: tuple[Member, ...]) -> Digest:
    """Merkle root over the roster in order of address: node, key, payee, dataset root, records as 8 bytes."""
    return root([leaf(m.node + m.key + m.payee + m.dataset_root + m.records.to_bytes(8, "big")) for m in roster])
