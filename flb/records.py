# SPDX-License-Identifier: Apache-2.0
"""What a round leaves: the record blob, canonical JSON that names everything that went in and what came out.

The record is a pure function of the round's inputs. Its SHA-256 is on chain (`recordDigest`), and the chain's
`recordHash` links it to the round before.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import rfc8785

from flb.errors import BadMessage
from flb.merkle import keccak256, update_leaf, updates_root
from flb.payouts import Standing, payout_root, scores_tree, standing_to_json, standings_from_json
from flb.privacy import noised_round
from flb.privacy.noised_round import NoisedRound
from flb.roster import roster_root
from flb.types import (
    ZERO_DIGEST,
    Address,
    Admitted,
    Block,
    Codec,
    Digest,
    Domain,
    Manifest,
    Opening,
    Round,
    Seconds,
    Step,
)

VERSION = 3
ROLL_TYPE = keccak256(
    b"Roll(uint32 round,bytes32 previous,bytes32 recordDigest,bytes32 adapterDigest,bytes32 updatesRoot,"
    b"bytes32 scoresRoot,bytes32 payoutRoot,bytes32 seed,uint32 accepted,uint64 weightSum,uint40 deadline)"
)
VOID_TYPE = keccak256(b"Void(uint32 round,bytes32 previous,bytes32 seed,uint40 deadline)")
RING = 64
"""The contract keeps so many record hashes; later rounds overwrite the oldest."""


@dataclass(frozen=True, slots=True)
class Closing:
    """The inputs of a round, fixed when its intake closes: everything after it is a pure function of these."""

    admitted: tuple[Admitted, ...]
    """In order of node address."""
    late: tuple[Address, ...]
    """Began to upload, were not admitted in time."""
    missing: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that a round leaves, as the blob holds it."""

    domain: Domain
    spec: Digest
    round: Round
    step: Step
    seed: Digest
    deadline: Seconds
    opened_at: Block
    previous: Digest
    """Record digest of the last sealed round, zero for the first."""
    base: Digest
    adapter: Digest
    optimizer_state: Digest
    """Digest of the server optimizer's moments after this step; zero for an optimizer that keeps none."""
    down: Digest
    """Digest of the encoded step; zero where the adapter travels whole."""
    remainder: Digest
    """Digest of what encoding the step left for the next one; likewise."""
    roster_root: Digest
    updates_root: Digest
    scores_root: Digest
    payout_root: Digest
    weight_sum: int
    standings: tuple[Standing, ...]
    """Every node that ever scored, in order of address, as it stands after this round."""
    closing: Closing
    noise: NoisedRound | None = None
    """What central privacy added; a run without it has no such field."""


@dataclass(frozen=True, slots=True)
class Roll:
    """The arguments of the contract's `roll`."""

    round: Round
    record_digest: Digest
    adapter_digest: Digest
    updates_root: Digest
    scores_root: Digest
    payout_root: Digest
    accepted: int
    weight_sum: int


def update_leaves(closing: Closing) -> list[Digest]:
    """Leaves of the updates tree, in order of node address."""
    return [
        update_leaf(a.node, a.weight, a.manifest.digest, a.manifest.tensor_root, a.manifest.dataset_root)
        for a in closing.admitted
    ]


def make(
    domain: Domain,
    spec: Digest,
    opening: Opening,
    previous: Digest,
    closing: Closing,
    adapter: Digest,
    optimizer_state: Digest = ZERO_DIGEST,
    down: Digest = ZERO_DIGEST,
    remainder: Digest = ZERO_DIGEST,
    *,
    standings: tuple[Standing, ...],
    round_payout: int,
    noise: NoisedRound | None = None,
) -> Record:
    """The record of a round that produced `adapter` from `closing`; `previous` is the record digest before it.

    `standings` is the table after this round (`flb.payouts.after`), `round_payout` what the run pays for a round.
    """
    return Record(
        domain=domain,
        spec=spec,
        round=opening.round,
        step=opening.step,
        seed=opening.seed,
        deadline=opening.deadline,
        opened_at=opening.block,
        previous=previous,
        base=opening.base,
        adapter=adapter,
        optimizer_state=optimizer_state,
        down=down,
        remainder=remainder,
        roster_root=roster_root(opening.roster),
        updates_root=updates_root(update_leaves(closing)),
        scores_root=scores_tree(standings).root,
        payout_root=payout_root(standings, round_payout),
        weight_sum=sum(a.weight for a in closing.admitted),
        standings=standings,
        closing=closing,
        noise=noise,
    )


def roll_of(record: Record, blob: bytes) -> Roll:
    """What is sent to the contract for a record and its blob."""
    return Roll(
        round=record.round,
        record_digest=Digest(hashlib.sha256(blob).digest()),
        adapter_digest=record.adapter,
        updates_root=record.updates_root,
        scores_root=record.scores_root,
        payout_root=record.payout_root,
        accepted=len(record.closing.admitted),
        weight_sum=record.weight_sum,
    )


def roll_hash(roll: Roll, previous: Digest, seed: Digest, deadline: Seconds) -> Digest:
    """`recordHash` as the contract computes it; `seed` and `deadline` are those of the opening that follows."""
    words = (
        roll.round, previous, roll.record_digest, roll.adapter_digest, roll.updates_root, roll.scores_root,
        roll.payout_root, seed, roll.accepted, roll.weight_sum, deadline,
    )  # fmt: skip
    return _hash(ROLL_TYPE, words)


def void_hash(number: Round, previous: Digest, seed: Digest, deadline: Seconds) -> Digest:
    """`recordHash` of a void round."""
    return _hash(VOID_TYPE, (number, previous, seed, deadline))


def _hash(type_hash: Digest, words: tuple[bytes | int, ...]) -> Digest:
    return keccak256(type_hash + b"".join(w.to_bytes(32, "big") if isinstance(w, int) else w for w in words))


# --- JSON: hex at the edge ---------------------------------------------------------------------------------------

_HEX = ("node", "seed", "spec", "base", "digest", "tensor_root", "dataset_root")


def admitted_to_json(admitted: Admitted) -> dict[str, Any]:
    """One admitted update as JSON."""
    m = admitted.manifest
    fields: dict[str, Any] = {name: "0x" + getattr(m, name).hex() for name in _HEX}
    fields |= {"round": m.round, "size": m.size, "examples": m.examples, "codec": m.codec.name.lower()}
    return {
        "manifest": fields,
        "signature": "0x" + admitted.signature.hex(),
        "weight": admitted.weight,
        "receipt": "0x" + admitted.receipt.hex(),
    }


def admitted_from_json(value: Any) -> Admitted:
    """The inverse of `admitted_to_json`. Raises KeyError, ValueError or TypeError for other JSON."""
    m = value["manifest"]
    raw = {name: _bytes(m[name], 20 if name == "node" else 32) for name in _HEX}
    manifest = Manifest(
        node=Address(raw["node"]), round=Round(_count(m["round"])), seed=Digest(raw["seed"]), spec=Digest(raw["spec"]),
        base=Digest(raw["base"]), digest=Digest(raw["digest"]), tensor_root=Digest(raw["tensor_root"]),
        dataset_root=Digest(raw["dataset_root"]), size=_count(m["size"]), examples=_count(m["examples"]),
        codec=Codec[m["codec"].upper()],
    )  # fmt: skip
    signature, receipt = bytes.fromhex(value["signature"][2:]), bytes.fromhex(value["receipt"][2:])
    return Admitted(manifest, signature, _count(value["weight"]), receipt)


def _bytes(text: str, size: int) -> bytes:
    """The inverse of "0x" and hex. Raises ValueError for another length than `size`."""
    raw = bytes.fromhex(text[2:])
    if len(raw) != size:
        raise ValueError(f"{len(raw)} bytes instead of {size}")
    return raw


def _count(value: Any) -> int:
    """An integer of 0 or more: what is hashed later has no sign. Raises ValueError."""
    if int(value) < 0:
        raise ValueError(f"{value} is below 0")
    return int(value)


def closing_to_json(closing: Closing) -> dict[str, Any]:
    """A closing as JSON."""
    return {
        "updates": [admitted_to_json(admitted) for admitted in closing.admitted],
        "late": ["0x" + node.hex() for node in closing.late],
        "missing": ["0x" + node.hex() for node in closing.missing],
    }


def closing_from_json(value: Any) -> Closing:
    """The inverse of `closing_to_json`."""
    return Closing(
        tuple(admitted_from_json(item) for item in value["updates"]),
        tuple(Address(_bytes(node, 20)) for node in value["late"]),
        tuple(Address(_bytes(node, 20)) for node in value["missing"]),
    )


_DIGESTS = (
    "spec", "seed", "previous", "base", "adapter", "optimizer_state", "down", "remainder", "roster_root", "updates_root",
    "scores_root", "payout_root",
)  # fmt: skip


def encode(record: Record) -> bytes:
    """The record blob: canonical JSON."""
    fields: dict[str, Any] = {name: "0x" + getattr(record, name).hex() for name in _DIGESTS}
    fields |= {
        "version": VERSION,
        "chain_id": record.domain.chain_id,
        "run": "0x" + record.domain.run.hex(),
        "round": record.round,
        "step": record.step,
        "deadline": record.deadline,
        "opened_at": {"number": record.opened_at.number, "hash": "0x" + record.opened_at.hash.hex()},
        "weight_sum": record.weight_sum,
        "standings": [standing_to_json(row) for row in record.standings],
        **closing_to_json(record.closing),
        **({"noise": noised_round.to_json(record.noise)} if record.noise is not None else {}),
    }
    return rfc8785.dumps(fields)


def decode(blob: bytes) -> Record:
    """Read a record blob. Raises BadMessage unless it is exactly what `encode` writes."""
    try:
        value = json.loads(blob)
        raw = {name: Digest(_bytes(value[name], 32)) for name in _DIGESTS}
        block = Block(_count(value["opened_at"]["number"]), Digest(_bytes(value["opened_at"]["hash"], 32)))
        record = Record(
            domain=Domain(_count(value["chain_id"]), Address(_bytes(value["run"], 20))),
            round=Round(_count(value["round"])), step=Step(_count(value["step"])),
            deadline=Seconds(_count(value["deadline"])), opened_at=block, weight_sum=_count(value["weight_sum"]),
            standings=standings_from_json(value["standings"]), closing=closing_from_json(value),
            noise=noised_round.from_json(value["noise"]) if "noise" in value else None, **raw,
        )  # fmt: skip
        if encode(record) == blob:
            return record
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadMessage("the record blob is malformed", "fetch it again; if it stays so, it was altered") from error
    raise BadMessage("the record blob is not canonical", "fetch it again; if it stays so, it was altered")
