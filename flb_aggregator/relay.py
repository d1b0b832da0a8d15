# SPDX-License-Identifier: Apache-2.0
"""Membership messages of nodes without coins, brought to the chain: checked, charged, collected, sent as one.

Each message is checked against the contract's rules as they stand with those before it, and simulated on the chain,
before it is charged; only what would take effect enters a batch. What comes between check and batch is the contract's
to skip. Nothing here is a promise: messages that wait are in memory, and a node asks again until the chain shows it.
"""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flb.chain.refusal import ACCOUNT_FAULTS
from flb.errors import BadMessage, ContractRefused, Refused, Unavailable
from flb.membership import Rules, SignedMessage, Slot, accept, message_hash
from flb.merkle import keccak256
from flb.types import ZERO_ADDRESS, Address, Digest, Domain
from flb_aggregator.relay_budget import Budget, network_of

MOST_MESSAGES = 16
"""Of one call."""
MOST_BATCH = 64
"""Of one transaction."""
MOST_WAITING = 1024
KEPT = 4096
"""Outcomes that are remembered."""
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Relayed:
    """A transaction that carried messages: `skipped` names the contract's error by index."""

    tx: Digest
    gas_used: int
    skipped: dict[int, str]


class RelayChain(Protocol):
    """What the relay asks of the chain; every call blocks and may raise ChainUnavailable."""

    def rules(self) -> Rules:
        """Admitter, end and time of the newest block."""
        ...

    def slot(self, node: Address) -> Slot:
        """What the contract holds of a node."""
        ...

    def simulate(self, messages: Sequence[SignedMessage]) -> tuple[bool, ...]:
        """Which messages would take effect if they were relayed now, in this order."""
        ...

    def relay(self, messages: Sequence[SignedMessage]) -> Relayed:
        """Send one transaction and wait for it."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message. `state` is accepted, mined, skipped or refused."""

    state: str
    tx: bytes = b""
    error: str = ""
    reason: str = ""


@dataclass(slots=True)
class Relay:
    """Collects and sends. One event loop owns it."""

    domain: Domain
    chain: RelayChain
    budget: Budget
    log: Callable[[str], None]
    batch_seconds: float
    waiting: list[SignedMessage] = field(default_factory=list)
    """Charged, in order, not yet mined."""
    known: OrderedDict[bytes, Outcome] = field(default_factory=OrderedDict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def submit(self, messages: Sequence[SignedMessage], peer: str) -> list[Outcome]:
        """What becomes of each message. Raises BadMessage, ChainUnavailable, or Busy; then none is taken."""
        if not 0 < len(messages) <= MOST_MESSAGES:
            raise BadMessage(f"the call holds {len(messages)} messages", f"send 1 to {MOST_MESSAGES}")
        async with self.turn:
            return await self.take(messages, peer)

    async def take(self, messages: Sequence[SignedMessage], peer: str) -> list[Outcome]:
        """`submit`, alone."""
        outcomes = await asyncio.to_thread(self.recall, messages)
        if all(outcome is not None for outcome in outcomes):
            return [outcome for outcome in outcomes if outcome is not None]
        fresh = [index for index, outcome in enumerate(outcomes) if outcome is None]
        checked, strangers = await asyncio.to_thread(self.check, [messages[index] for index in fresh])
        good = [messages[index] for index, refused in zip(fresh, checked, strict=True) if refused is None]
        if len(self.waiting) + len(good) > MOST_WAITING:
            raise Unavailable("too many messages wait for the chain", "come back later")
        try:
            await asyncio.to_thread(self.budget.charge, good, network_of(peer), strangers)
        except OSError as error:
            raise Unavailable("the aggregator cannot write down what it spends", "come back later") from error
        for index, refused in zip(fresh, checked, strict=True):
            outcomes[index] = refused or Outcome("accepted")
        for signed in good:
            self.remember(signed, Outcome("accepted"))
        self.waiting += good
        if good:
            self.arrived.set()
        return [outcome for outcome in outcomes if outcome is not None]

    def recall(self, messages: Sequence[SignedMessage]) -> list[Outcome | None]:
        """In a thread: what is known of each message; nothing of one that was mined and that a reorg took back."""
        outcomes = [self.known.get(self.name(signed)) for signed in messages]
        return [
            None
            if outcome is not None and outcome.state == "mined" and self.chain.slot(m.node).seq < m.seq
            else outcome
            for outcome, m in zip(outcomes, (signed.message for signed in messages), strict=True)
        ]

    def check(self, messages: Sequence[SignedMessage]) -> tuple[list[Outcome | None], bool]:
        """In a thread: the refusal of each message or None, by the rules and then on the chain; and open membership."""
        rules, slots = self.chain.rules(), dict[Address, Slot]()
        nodes = {signed.message.node for signed in messages}
        # a message changes the slot of its own node alone, so what waits of others is not looked at again
        before = [signed for signed in self.waiting if signed.message.node in nodes][-MOST_BATCH:]
        for signed in before:
            self.follow(signed, slots, rules)
        outcomes = [self.follow(signed, slots, rules) for signed in messages]
        good = [signed for signed, refused in zip(messages, outcomes, strict=True) if refused is None]
        if good:
            # with what waits, which the chain does not hold yet
            effects = iter(self.chain.simulate([*before, *good])[len(before) :])
            for index, refused in enumerate(outcomes):
                if refused is None and not next(effects):
                    outcomes[index] = Outcome("refused", reason="the contract would skip this message")
        return outcomes, rules.admitter == ZERO_ADDRESS

    def follow(self, signed: SignedMessage, slots: dict[Address, Slot], rules: Rules) -> Outcome | None:
        """Apply one message to the slots; its refusal, or None."""
        node = signed.message.node
        if node not in slots:
            slots[node] = self.chain.slot(node)
        try:
            slots[node] = accept(signed, slots[node], self.domain, rules)
        except ContractRefused as error:
            return Outcome("refused", error=error.name, reason=str(error))
        return None

    def name(self, signed: SignedMessage) -> bytes:
        """What a message is known by: everything that may differ, signatures included."""
        return keccak256(
            message_hash(signed.message) + signed.compact + signed.invite.deadline.to_bytes(5, "big")
            + signed.invite.compact
        )  # fmt: skip

    def remember(self, signed: SignedMessage, outcome: Outcome) -> None:
        """Keep an outcome for whoever asks again; the oldest are forgotten."""
        self.known[self.name(signed)] = outcome
        while len(self.known) > KEPT:
            self.known.popitem(last=False)

    async def run(self) -> None:
        """Send batches for ever."""
        while True:
            await self.arrived.wait()
            await asyncio.sleep(self.batch_seconds)
            self.arrived.clear()
            batch: list[SignedMessage] = []
            while self.waiting:
                batch = batch or self.waiting[:MOST_BATCH]
                if await self.send(batch):
                    batch = []
                else:  # the same again, for its transaction may be under way
                    await asyncio.sleep(RETRY_SECONDS)

    async def send(self, batch: Sequence[SignedMessage]) -> bool:
        """One transaction; False if it is worth another try. A batch that was mined after all is skipped by its seq."""
        started = time.monotonic()
        try:
            relayed = await asyncio.to_thread(self.chain.relay, batch)
        except Unavailable as error:
            self.log(f"{error}; the messages of {len(batch)} nodes wait")
            return False
        except Refused as error:
            self.log(f"{len(batch)} membership messages could not be sent: {error}")
            name = error.name if isinstance(error, ContractRefused) else error.code
            if name in ACCOUNT_FAULTS:  # ours and of no message: they wait until the operator has mended it
                return False
            async with self.turn:
                self.drop(batch, [Outcome("refused", error=name, reason=str(error))] * len(batch))
            return True
        outcomes = [
            Outcome("skipped", relayed.tx, relayed.skipped[index], "the chain had changed when it was mined")
            if index in relayed.skipped
            else Outcome("mined", relayed.tx)
            for index in range(len(batch))
        ]
        async with self.turn:
            self.drop(batch, outcomes)
            with contextlib.suppress(OSError):  # then the charge of before stands
                await asyncio.to_thread(self.budget.settle, batch, relayed.gas_used)
        self.log(
            f"relayed {len(batch) - len(relayed.skipped)} of {len(batch)} membership messages, {relayed.gas_used} gas, "
            f"{time.monotonic() - started:.1f} s"
        )
        return True

    def drop(self, batch: Sequence[SignedMessage], outcomes: Sequence[Outcome]) -> None:
        """The batch does not wait any more."""
        del self.waiting[: len(batch)]
        for signed, outcome in zip(batch, outcomes, strict=True):
            self.remember(signed, outcome)
