# SPDX-License-Identifier: Apache-2.0
"""The registry port in memory: the events that the contract would emit, by its rules, without a chain.

For simulated runs and for tests. Blocks, seeds and transactions are hashes of counters, so the same calls give the same
events; time is what `now` says. A reorg can be played: blocks are undone, and what is mined again has other hashes.
"""

from dataclasses import dataclass, field

from flb import events as chain
from flb import identity, records, roster
from flb import spec as specs
from flb.errors import ContractRefused
from flb.merkle import keccak256
from flb.records import Roll
from flb.types import Block, Digest, Member, Round, Seconds

AGGREGATOR_KEY = bytes(31) + b"\x63"
"""The private key of the aggregator that `start` names. Everybody knows it: it signs for runs that are on no chain."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A mined transaction."""

    tx: Digest
    gas_used: int = 60_000


@dataclass
class MemoryRegistry:
    """A run's events, oldest first, each in a block of its own. `unconfirmed` newest blocks are not in `view`; `salt`
    goes into every hash."""

    spec: specs.RunSpec
    adapter: Digest
    now: Seconds = Seconds(900)
    events: list[chain.ChainEvent] = field(default_factory=list)
    salt: bytes = b""
    unconfirmed: int = 0

    def place(self) -> chain.Place:
        """The next block."""
        number = self.events[-1].place.block.number + 1 if self.events else 1
        hashed = keccak256(self.salt + number.to_bytes(8, "big"))
        return chain.Place(Block(number, hashed), 0, Digest(hashed))

    def seed(self, place: chain.Place) -> Digest:
        """A seed that names one opening."""
        return keccak256(b"seed" + place.block.hash)

    def join(self, member: Member) -> None:
        """A member with its dataset."""
        self.events.append(chain.ChainNodeJoined(self.place(), member.node, member.key, member.payee, False))
        root, count = member.dataset_root, member.records
        self.events.append(chain.ChainDatasetRegistered(self.place(), member.node, root, 1, count))

    def start(self) -> None:
        """Open round 1."""
        place = self.place()
        digest = specs.digest_of(self.spec.encode())
        aggregator = identity.address_of(AGGREGATOR_KEY)
        self.events.append(chain.ChainAggregatorSet(place, aggregator, Round(1)))
        self.events.append(chain.ChainRunStarted(place, digest, self.adapter, self.seed(place), self.deadline()))

    def deadline(self) -> Seconds:
        """Of a round that opens now."""
        return Seconds(self.now + self.spec.rounds.round_seconds)

    def view(self) -> roster.RunView:
        """What the events say, without those of the newest `unconfirmed` blocks."""
        newest = self.events[-1].place.block.number if self.events else 0
        return roster.fold(event for event in self.events if event.place.block.number <= newest - self.unconfirmed)

    def head(self) -> roster.RunView:
        """What all events say."""
        return roster.fold(self.events)

    def roll(self, roll: Roll) -> Sent:
        """Seal the open round. Raises ContractRefused for another one, as the contract does."""
        view = self.head()
        if view.opening is None or view.opening.round != roll.round:
            raise ContractRefused("FLBWrongRound", (roll.round, view.opening.round if view.opening else 0))
        place = self.place()
        seed, deadline = self.seed(place), self.deadline()
        hashed = records.roll_hash(roll, view.opening.previous, seed, deadline)
        self.events.append(
            chain.ChainRoundRolled(
                place, roll.round, hashed, roll.record_digest, roll.adapter_digest, roll.updates_root,
                roll.scores_root, roll.payout_root, seed, roll.accepted, roll.weight_sum, deadline,
            )
        )  # fmt: skip
        if len(view.rolls) + 1 == self.spec.rounds.steps:
            self.events.append(chain.ChainRunFinished(place, roll.round, hashed))
        return Sent(place.tx)

    def expire(self, number: Round) -> Sent:
        """Void the open round. Raises ContractRefused for another one."""
        view = self.head()
        if view.opening is None or view.opening.round != number:
            raise ContractRefused("FLBWrongRound", (number, view.opening.round if view.opening else 0))
        place = self.place()
        seed, deadline = self.seed(place), self.deadline()
        hashed = records.void_hash(number, view.opening.previous, seed, deadline)
        self.events.append(chain.ChainRoundVoided(place, number, hashed, seed, deadline))
        return Sent(place.tx)

    def set_endpoint(self, uri: str, cert_digest: Digest, next_cert_digest: Digest) -> Sent:
        """Publish where the aggregator listens."""
        place = self.place()
        self.events.append(chain.ChainEndpointSet(place, uri, cert_digest, next_cert_digest))
        return Sent(place.tx)

    def undo(self, blocks: int) -> None:
        """A reorg: the last events are gone, and new blocks get other hashes."""
        del self.events[len(self.events) - blocks :]
        self.salt += b"x"
