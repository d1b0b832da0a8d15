# SPDX-License-Identifier: Apache-2.0
"""What can be checked of a sealed round without its updates' bytes: the hash chain, the record, every signature.

Each check returns findings, never raises: an auditor wants to see all that is wrong. Walking bytes is
`flb_cli.replay`'s part.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from flb import events as chain
from flb import identity, payouts, records, scoring
from flb.admission import check_manifest, weight
from flb.errors import FLBError
from flb.events import ChainEvent
from flb.merkle import updates_root
from flb.payouts import Standing
from flb.records import Record, Roll
from flb.roster import OpenRound, draw, quorum, roster_root
from flb.server_optimizer import OPTIMIZERS
from flb.spec import RunSpec
from flb.types import ZERO_DIGEST, Address, Admitted, Digest, Domain, Opening, Round

WORDS = {"score": "score", "total": "total score", "payout": "cumulative payout"}
"""How a finding names the columns of a standing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where: the first of a run tells where to look."""

    what: str
    round: Round | None = None
    node: Address | None = None
    tensor: str | None = None

    def __str__(self) -> str:
        where = [f"round {self.round}" if self.round is not None else "run"]
        if self.node is not None:
            where.append(f"node 0x{self.node.hex()}")
        if self.tensor is not None:
            where.append(f"tensor {self.tensor}")
        return f"{', '.join(where)}: {self.what}"


def check_hash_chain(events: Iterable[ChainEvent]) -> Iterator[Finding]:
    """Recompute every record hash from the fields of its event and the hash before."""
    previous = ZERO_DIGEST
    for event in events:
        if isinstance(event, chain.ChainRoundRolled):
            hashed = records.roll_hash(roll_of(event), previous, event.seed, event.deadline)
        elif isinstance(event, chain.ChainRoundVoided):
            hashed = records.void_hash(event.round, previous, event.seed, event.deadline)
        else:
            continue
        if hashed != event.record_hash:
            yield Finding("the record hash on chain does not follow from its fields and the round before", event.round)
        previous = event.record_hash


def roll_of(event: chain.ChainRoundRolled) -> Roll:
    """The roll that the event reports."""
    return Roll(
        round=event.round,
        record_digest=event.record_digest,
        adapter_digest=event.adapter_digest,
        updates_root=event.updates_root,
        scores_root=event.scores_root,
        payout_root=event.payout_root,
        accepted=event.accepted,
        weight_sum=event.weight_sum,
    )


def check_record(
    record: Record,
    rolled: chain.ChainRoundRolled,
    opened: OpenRound,
    *,
    previous: Digest,
    spec: RunSpec,
    spec_digest: Digest,
    domain: Domain,
    aggregator: Address,
) -> Iterator[Finding]:
    """Compare a record with the chain and check every update that it lists, bytes aside."""
    opening = draw(opened, spec.rounds)
    expected = replace(
        record,
        domain=domain,
        spec=spec_digest,
        round=opening.round,
        step=opening.step,
        seed=opening.seed,
        deadline=opening.deadline,
        opened_at=opening.block,
        previous=previous,
        base=opening.base,
        adapter=rolled.adapter_digest,
        roster_root=roster_root(opening.roster),
        updates_root=rolled.updates_root,
        scores_root=rolled.scores_root,
        payout_root=rolled.payout_root,
        weight_sum=rolled.weight_sum,
    )
    for name in Record.__slots__:
        if getattr(record, name) != getattr(expected, name):
            yield Finding(f"the record's {name} differs from the chain", opening.round)
    for name in ("down", "remainder"):
        if (getattr(record, name) != ZERO_DIGEST) != spec.encodes_steps:
            yield Finding(f"the record's {name} does not fit a run with down: {spec.down}", opening.round)
    optimizer = spec.server_optimizer.name
    if (record.optimizer_state != ZERO_DIGEST) != (OPTIMIZERS[optimizer].moments > 0):
        yield Finding(f"the record's optimizer_state does not fit the server optimizer {optimizer}", opening.round)
    admitted = record.closing.admitted
    if updates_root(records.update_leaves(record.closing)) != rolled.updates_root:
        yield Finding("the updates root on chain does not follow from the record's updates", opening.round)
    if len(admitted) != rolled.accepted or sum(a.weight for a in admitted) != rolled.weight_sum:
        yield Finding("number or weight of updates on chain differ from the record", opening.round)
    yield from check_closing(record, opening, spec)
    for item in admitted:
        yield from check_admitted(item, opening, spec, spec_digest, domain, aggregator)


def check_scores(
    record: Record, rolled: chain.ChainRoundRolled, before: Sequence[Standing] | None, spec: RunSpec
) -> Iterator[Finding]:
    """Recompute the standings from the record before (None where it cannot be seen) and this one's updates, and both
    roots from the standings; a node whose line differs is named."""
    pays = spec.scoring.payout
    for name, root, own in (
        ("scores", rolled.scores_root, payouts.scores_tree(record.standings).root),
        ("payout", rolled.payout_root, payouts.payout_root(record.standings, pays)),
    ):
        if root != own:
            yield Finding(f"the {name} root on chain does not follow from the record's standings", record.round)
    scores = scoring.of_round(record.closing.admitted, spec)
    held = {row.node: row for row in record.standings}
    try:
        expected = payouts.after(before, scores, pays) if before is not None else ()
    except FLBError as error:
        yield Finding(error.what, record.round)
        return
    if before is None:  # the scores of this round still follow from its updates
        for node in sorted(held.keys() | scores.keys()):
            told = held[node].score if node in held else 0
            if told != scores.get(node, 0):
                yield Finding(f"its score {told} in the record should be {scores.get(node, 0)}", record.round, node)
        return
    for row in expected:
        own_row = held.pop(row.node, Standing(row.node, 0, 0, 0))
        for what in ("score", "total", "payout"):
            told, right = getattr(own_row, what), getattr(row, what)
            if told != right:
                yield Finding(f"its {WORDS[what]} {told} in the record should be {right}", record.round, row.node)
                break
    for node in held:
        yield Finding("it stands in the record's table, but never had an update admitted", record.round, node)


def check_closing(record: Record, opening: Opening, spec: RunSpec) -> Iterator[Finding]:
    """Admitted, late and missing are the cohort, each once, in order of address, with its quorum."""
    closing = record.closing
    nodes = [a.node for a in closing.admitted]
    if nodes != sorted(set(nodes)):
        yield Finding("the record's updates are not in order of node address, each once", opening.round)
    if sorted([*nodes, *closing.late, *closing.missing]) != [member.node for member in opening.cohort]:
        yield Finding("admitted, late and missing nodes are not the cohort that the seed draws", opening.round)
    if len(nodes) < quorum(len(opening.cohort), spec.rounds.min_nodes):
        yield Finding(f"{len(nodes)} updates are below the quorum", opening.round)


def check_admitted(
    item: Admitted, opening: Opening, spec: RunSpec, spec_digest: Digest, domain: Domain, aggregator: Address
) -> Iterator[Finding]:
    """The node signed this manifest, its weight is right, and the aggregator signed the receipt."""
    manifest = item.manifest
    try:
        member = check_manifest(
            manifest,
            item.signature,
            spec=spec,
            spec_digest=spec_digest,
            domain=domain,
            opening=opening,
            admitted=None,
        )
    except FLBError as error:
        yield Finding(error.what, opening.round, manifest.node)
        return
    if item.weight != weight(spec, manifest, member):
        yield Finding(f"its weight {item.weight} does not follow from its claim", opening.round, manifest.node)
    receipt = identity.receipt_for(manifest, item.weight)
    try:
        signer = identity.recover(domain, identity.receipt_hash(receipt), item.receipt)
    except FLBError as error:
        yield Finding(f"its receipt: {error.what}", opening.round, manifest.node)
        return
    if signer != aggregator:
        yield Finding("its receipt is not signed by the round's aggregator", opening.round, manifest.node)
