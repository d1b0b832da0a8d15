# SPDX-License-Identifier: Apache-2.0
"""What the registry says, as values: one class an event of `IFLBRun`, each with the place where it stands.

The prefix says where a fact comes from: `Chain` from the registry, `Peer` from a node, `Timer` from the clock.
`flb.chain.events` makes these from logs; `flb.roster` and `flb.rounds` fold them.
"""

from dataclasses import dataclass

from flb.types import Address, Block, Digest, Round, Seconds


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event stands: block, position in the block, and transaction."""

    block: Block
    index: int
    tx: Digest


@dataclass(frozen=True, slots=True)
class ChainRunStarted:
    """Round 1 is open."""

    place: Place
    spec: Digest
    adapter_digest: Digest
    seed: Digest
    deadline: Seconds


@dataclass(frozen=True, slots=True)
class ChainRoundRolled:
    """`round` is sealed; the next one is open with `seed` and `deadline` unless `ChainRunFinished` follows."""

    place: Place
    round: Round
    record_hash: Digest
    record_digest: Digest
    adapter_digest: Digest
    updates_root: Digest
    scores_root: Digest
    payout_root: Digest
    seed: Digest
    accepted: int
    weight_sum: int
    deadline: Seconds


@dataclass(frozen=True, slots=True)
class ChainRoundVoided:
    """`round` ended without an adapter; the next one is open unless `ChainRunFinished` follows."""

    place: Place
    round: Round
    record_hash: Digest
    seed: Digest
    deadline: Seconds


@dataclass(frozen=True, slots=True)
class ChainRunFinishing:
    """The owner made `round` the last one."""

    place: Place
    round: Round


@dataclass(frozen=True, slots=True)
class ChainRunFinished:
    """`round` was the last one."""

    place: Place
    round: Round
    record_hash: Digest


@dataclass(frozen=True, slots=True)
class ChainNodeJoined:
    """`node` is a member from the next opening on."""

    place: Place
    node: Address
    key: Address
    payee: Address
    relayed: bool


@dataclass(frozen=True, slots=True)
class ChainNodeLeft:
    """`node` left."""

    place: Place
    node: Address


@dataclass(frozen=True, slots=True)
class ChainNodeRemoved:
    """`node` was removed by `by`."""

    place: Place
    node: Address
    by: Address


@dataclass(frozen=True, slots=True)
class ChainDatasetRegistered:
    """`node` committed to a dataset of `records` records."""

    place: Place
    node: Address
    root: Digest
    version: int
    records: int


@dataclass(frozen=True, slots=True)
class ChainEndpointSet:
    """Where the aggregator listens, and its certificates."""

    place: Place
    uri: str
    cert_digest: Digest
    next_cert_digest: Digest


@dataclass(frozen=True, slots=True)
class ChainAggregatorSet:
    """`aggregator` may roll from `round` on."""

    place: Place
    aggregator: Address
    round: Round


@dataclass(frozen=True, slots=True)
class ChainKeyRotated:
    """`node` signs with `key` from here on."""

    place: Place
    node: Address
    key: Address


@dataclass(frozen=True, slots=True)
class ChainPayeeSet:
    """What `node` earns goes to `payee` from here on."""

    place: Place
    node: Address
    payee: Address


@dataclass(frozen=True, slots=True)
class ChainDatasetRevoked:
    """The dataset no longer counts for `node`."""

    place: Place
    node: Address
    root: Digest


@dataclass(frozen=True, slots=True)
class ChainAdmitterSet:
    """`admitter` signs invites from here on."""

    place: Place
    admitter: Address


@dataclass(frozen=True, slots=True)
class ChainRelaySkipped:
    """Entry `index` of a relayed batch, about `node`, did nothing; `reason` is the selector of the error, 4 bytes."""

    place: Place
    index: int
    node: Address
    reason: bytes


@dataclass(frozen=True, slots=True)
class ChainPayoutActivated:
    """Claims are paid by `root`, the payout root of `round`."""

    place: Place
    round: Round
    root: Digest


@dataclass(frozen=True, slots=True)
class ChainPayoutCancelled:
    """The owner ruled that the payout root of `round` is never activated."""

    place: Place
    round: Round


@dataclass(frozen=True, slots=True)
class ChainClaimed:
    """`amount` of the token's smallest unit was paid to `payee` for `node`."""

    place: Place
    node: Address
    payee: Address
    amount: int


ChainEvent = (
    ChainRunStarted
    | ChainRoundRolled
    | ChainRoundVoided
    | ChainRunFinishing
    | ChainRunFinished
    | ChainNodeJoined
    | ChainNodeLeft
    | ChainNodeRemoved
    | ChainDatasetRegistered
    | ChainEndpointSet
    | ChainAggregatorSet
    | ChainKeyRotated
    | ChainPayeeSet
    | ChainDatasetRevoked
    | ChainAdmitterSet
    | ChainRelaySkipped
    | ChainPayoutActivated
    | ChainPayoutCancelled
    | ChainClaimed
)
