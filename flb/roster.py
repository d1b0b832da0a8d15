# SPDX-License-Identifier: Apache-2.0
"""The registry's events folded into a view: members, the open round, what was sealed, who leads, where to call.

Pure and cheap, so everyone who reads the same chain has the same roster, the same cohort and the same step. A reorg
is not undone here: the reader folds again from the deploy block.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

from flb import events as chain
from flb.events import ChainEvent
from flb.merkle import keccak256, leaf, root
from flb.run_view import OpenRound, RunView
from flb.spec import RoundSpec
from flb.types import ZERO_DIGEST, Address, Digest, Member, Opening, Round, Step

__all__ = ["OpenRound", "RunView", "apply", "cohort", "draw", "fold", "quorum", "roster_root"]


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
    changed: set[Address]
    """Who came, went or changed in blocks before this one since `seats` was made."""
    nodes: list[Address] | None
    """Addresses of `seats`; None until a round opens."""
    seats: list[Member]
    """A membership in order of address. Each opening brings it up to date, which spares a sort of everybody."""
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
    return _Fold(
        view=view,
        members=dict(view.members),
        before=dict(view.before),
        datasets=dict(view.datasets),  # type: ignore[arg-type]  # an inner dict is copied before it is changed
        own=set(),
        rolls=list(view.rolls),
        openings=dict(view.openings),
        claimed=dict(view.claimed),
        changed=set(),
        nodes=None,
        seats=[],
        block_number=view.block_number,
    )


def _freeze(inner: _Fold) -> RunView:
    return replace(
        inner.view,
        members=inner.members,
        before=inner.before,
        datasets=inner.datasets,
        block_number=inner.block_number,
        rolls=tuple(inner.rolls),
        openings=inner.openings,
        claimed=inner.claimed,
    )


def _settled(inner: _Fold) -> dict[Address, Member]:
    """The membership at the end of the block before; `members` itself where this block changed none."""
    if not inner.before:
        return inner.members
    settled = dict(inner.members)
    for node, member in inner.before.items():
        if member is None:
            settled.pop(node, None)
        else:
            settled[node] = member
    return settled


def _apply(inner: _Fold, event: ChainEvent) -> None:
    number = event.place.block.number
    if number != inner.block_number:
        inner.block_number = number
        if inner.before:
            inner.changed.update(inner.before)  # `|=` with the keys of a dict would copy the set
            inner.before = {}
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
        case chain.ChainPayoutActivated():
            inner.view = replace(view, payout_round=event.round, payout_root=event.root)
        case chain.ChainPayoutCancelled():
            inner.view = replace(view, cancelled=view.cancelled | {event.round})
        case chain.ChainClaimed():
            inner.claimed[event.node] = inner.claimed.get(event.node, 0) + event.amount
        case chain.ChainRelaySkipped() | chain.ChainAdmitterSet():
            pass  # nothing happened; and who admits is asked of the contract
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
    """Set or delete a member; what stood before this block is kept for `_settled`."""
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
    last = inner.view.opening
    if inner.nodes is None:
        settled = _settled(inner)
        inner.nodes = sorted(settled)
        inner.seats = [settled[node] for node in inner.nodes]
    elif not inner.changed and last is not None:
        return last.roster
    for node in inner.changed:
        _seat(
            inner.nodes, inner.seats, node, inner.before.get(node) if node in inner.before else inner.members.get(node)
        )
    inner.changed = set()
    roster = tuple(inner.seats)
    return last.roster if last is not None and last.roster == roster else roster


def _seat(nodes: list[Address], seats: list[Member], node: Address, member: Member | None) -> None:
    """Put a member in its place, or leave the place out."""
    at = bisect_left(nodes, node)
    width = 1 if nodes[at : at + 1] == [node] else 0
    nodes[at : at + width] = [] if member is None else [node]
    seats[at : at + width] = [] if member is None else [member]


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
