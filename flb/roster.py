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
    datasets: frozenset[tuple[Address, Digest]] = frozenset()
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


def fold(events: Iterable[ChainEvent], view: RunView | None = None) -> RunView:
    """Apply events, in the order of the chain, to `view`."""
    view = view or RunView()
    for event in events:
        view = apply(view, event)
    return view


def apply(view: RunView, event: ChainEvent) -> RunView:
    """Apply one event."""
    number = event.place.block.number
    if number != view.block_number:
        view = replace(view, settled=view.members, block_number=number)
    match event:
        case chain.ChainRunStarted():
            view = replace(view, spec=event.spec, adapter=event.adapter_digest)
            return _open(view, Round(1), event.seed, event.deadline, ZERO_DIGEST, event.place.block)
        case chain.ChainRoundRolled():
            view = replace(view, adapter=event.adapter_digest, rolls=(*view.rolls, event))
            return _open(view, Round(event.round + 1), event.seed, event.deadline, event.record_hash, event.place.block)
        case chain.ChainRoundVoided():
            return _open(view, Round(event.round + 1), event.seed, event.deadline, event.record_hash, event.place.block)
        case chain.ChainRunFinished():
            openings = {number: opened for number, opened in view.openings.items() if number <= event.round}
            return replace(view, opening=None, openings=openings, finished=True)
        case chain.ChainRunFinishing():
            return replace(view, last=event.round)
        case chain.ChainAggregatorSet():
            if view.opening is None:
                return replace(view, aggregator=event.aggregator)
            return replace(view, next_aggregator=event.aggregator)
        case chain.ChainEndpointSet():
            return replace(view, uri=event.uri, cert_digest=event.cert_digest, next_cert_digest=event.next_cert_digest)
        case _:
            return _apply_membership(view, event)


def _apply_membership(view: RunView, event: ChainEvent) -> RunView:
    members = dict(view.members)
    match event:
        case chain.ChainNodeJoined():
            members[event.node] = Member(event.node, event.key, event.payee)
        case chain.ChainNodeLeft() | chain.ChainNodeRemoved():
            members.pop(event.node, None)
            kept = frozenset(item for item in view.datasets if item[0] != event.node)
            return replace(view, members=members, datasets=kept)
        case chain.ChainDatasetRegistered():
            member = members.get(event.node)
            if member is None or (event.node, event.root) in view.datasets:
                return view  # a root counts once for a node: the first event wins
            members[event.node] = replace(member, dataset_root=event.root, records=event.records)
            return replace(view, members=members, datasets=view.datasets | {(event.node, event.root)})
    return replace(view, members=members)


def _open(view: RunView, number: Round, seed: Digest, deadline: Seconds, previous: Digest, block: Block) -> RunView:
    roster = tuple(sorted(view.settled.values(), key=lambda member: member.node))
    step = Step(len(view.rolls) + 1)
    opened = OpenRound(number, step, seed, deadline, view.adapter, previous, block, roster)
    return replace(
        view,
        opening=opened,
        openings={**view.openings, number: opened},
        aggregator=view.next_aggregator or view.aggregator,
        next_aggregator=None,
    )


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
