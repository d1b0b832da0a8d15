# SPDX-License-Identifier: Apache-2.0
"""The aggregator's life: feed chain, peers and clock to the round machine, write facts down, carry out effects.

One asyncio loop owns the state; what blocks (chain, disk, arithmetic) runs in threads and reports back. Persist, then
speak: a fact is in the journal before its effect begins or its receipt leaves. Killed at any moment, the next start
folds chain and journal and goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flb import identity, records
from flb.errors import ContractRefused, CorruptStore, FLBError, LostChain, Unavailable
from flb.records import Roll
from flb.roster import RunView
from flb.rounds import (
    Announce,
    ChainAdvanced,
    Combine,
    Effect,
    Event,
    JournalClosing,
    Name,
    PeerUpdateAdmitted,
    PeerUploadBegun,
    Phase,
    State,
    StepCombined,
    SubmitExpire,
    SubmitRoll,
    TimerTicked,
    name_of,
    restore,
    step,
)
from flb.spec import RunSpec
from flb.store import BlobStore, Journal
from flb.types import ZERO_DIGEST, Admitted, Digest, Domain, Manifest, Round, Seconds
from flb_aggregator import pipeline, publish
from flb_aggregator.intake import Spool
from flb_aggregator.metrics import Metrics
from flb_aggregator.ports import Chain, Sent

RETRY_SECONDS = 1.0
"""Wait after the chain was away."""


@dataclass(slots=True)
class Daemon:
    """Everything the process holds; built by `flb_aggregator.app`."""

    spec: RunSpec
    spec_digest: Digest
    domain: Domain
    key: bytes
    chain: Chain
    journal: Journal
    blobs: BlobStore
    spool: Spool
    adapters: Path
    metrics: Metrics
    now: Callable[[], float]
    log: Callable[[str], None]
    poll_seconds: float
    state: State = field(init=False)
    view: RunView = field(default_factory=RunView)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    poke: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    sending: set[tuple[str, Name]] = field(default_factory=set)
    failed: asyncio.Future[None] | None = None

    def __post_init__(self) -> None:
        self.state = restore(self.spec.rounds, self.journal.facts())

    # ------------------------------------------------------------------ facts

    def dispatch(self, event: Event) -> None:
        """One transition: compute, write facts down, then start the effects."""
        state, effects = step(self.state, event)
        if state is not self.state and isinstance(event, PeerUploadBegun | PeerUpdateAdmitted | StepCombined):
            self.journal.append(event)
        for effect in effects:
            if isinstance(effect, JournalClosing):
                self.journal.append(effect.fact)
        self.state = state
        for effect in effects:
            self.execute(effect)

    def execute(self, effect: Effect) -> None:
        """Start one effect."""
        match effect:
            case Combine():
                self.spawn(self.combine(effect))
            case SubmitRoll():
                self.spawn(self.submit("roll", lambda: self.chain.roll(effect.roll)))
            case SubmitExpire():
                self.log(f"round {effect.round}: below quorum after its grace, voiding it")
                self.spawn(self.submit("expire", lambda: self.chain.expire(effect.round)))
            case Announce():
                self.spawn(self.announce())

    def begin(self, manifest: Manifest) -> None:
        """A node whose manifest passed begins to send."""
        self.dispatch(PeerUploadBegun((manifest.round, manifest.seed), manifest.node))

    def admit(self, manifest: Manifest, signature: bytes, weight: int, norm: float) -> Admitted | None:
        """Sign the receipt, journal the update; None if intake closed in the meantime. Returns what counts."""
        receipt = identity.receipt_for(manifest, weight)
        signed = identity.sign(self.key, self.domain, identity.receipt_hash(receipt))
        name = (manifest.round, manifest.seed)
        self.dispatch(PeerUpdateAdmitted(name, Admitted(manifest, signature, weight, signed)))
        work = self.state.works.get(name)
        admitted = work.admitted.get(manifest.node) if work else None
        if admitted is not None:
            self.log(f"round {manifest.round}: admitted 0x{manifest.node.hex()[:8]}… weight {weight} norm {norm:.3f}")
        return admitted

    # ---------------------------------------------------------------- effects

    async def combine(self, effect: Combine) -> None:
        """Make the adapter and the record; report `StepCombined`."""
        previous = self.view.rolls[-1].record_digest if self.view.rolls else ZERO_DIGEST
        started = self.now()
        roll = await asyncio.to_thread(self.make, effect, previous)
        self.metrics.combined(effect.opening, effect.closing, self.now() - started)
        self.log(
            f"round {effect.opening.round}: adapter {roll.adapter_digest.hex()[:12]}… from {roll.accepted} updates"
        )
        self.dispatch(StepCombined(name_of(effect.opening), roll, effect.opening.block))

    def make(self, effect: Combine, previous: Digest) -> Roll:
        """Pure in its inputs: called again after a restart it writes the same bytes."""
        opening, closing = effect.opening, effect.closing
        inputs = [pipeline.Input(a.weight, self.blobs.path(a.manifest.digest)) for a in closing.admitted]
        with self.blobs.writer() as out:
            pipeline.combine(self.spec, opening.step, self.blobs.path(opening.base), inputs, out.write)
            adapter = out.commit()
        publish.publish_folder(self.adapters, self.spec, opening.step, self.blobs, adapter)
        record = records.make(self.domain, self.spec_digest, opening, previous, closing, adapter)
        blob = records.encode(record)
        self.blobs.put(blob)
        return records.roll_of(record, blob)

    async def submit(self, what: str, send: Callable[[], Sent]) -> None:
        """Send the transaction that ends the open round, once at a time; the machine asks again if it is lost."""
        opening, phase = self.state.opening, self.state.phase
        if opening is None or (what, name_of(opening)) in self.sending:
            return
        key = (what, name_of(opening))
        self.sending.add(key)
        try:
            # The contract checks the number of the round alone: what waited out an outage must still be due.
            while self.state.opening == opening and self.state.phase is phase:
                if await self.sent(what, opening.round, send):
                    break
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self.sending.discard(key)
        self.poke.set()

    async def sent(self, what: str, number: Round, send: Callable[[], Sent]) -> bool:
        """One try; False if it is worth another."""
        try:
            mined = await asyncio.to_thread(send)
        except ContractRefused as error:
            if error.name == "FLBTooEarly":  # the chain's clock is behind ours
                return False
            if error.name not in ("FLBWrongRound", "revert"):
                raise
            # somebody else ended the round first; "revert" is the same, seen only when it was mined
            self.log(f"round {number}: {what} is not due any more ({error})")
            return True
        except Unavailable as error:
            self.log(f"{error}; trying again")
            return False
        self.metrics.sealed(number, what, mined.tx, mined.gas_used)
        self.log(f"round {number}: {what} mined, {mined.gas_used} gas")
        return True

    async def announce(self) -> None:
        """Wake the watchers."""
        async with self.changed:
            self.changed.notify_all()

    # ------------------------------------------------------------------ loops

    async def follow_chain(self) -> None:
        """Read the chain for ever; an outage delays, a lost chain ends the process."""
        away = False
        while True:
            try:
                view = await asyncio.to_thread(self.chain.view)
                if away:
                    self.log("the chain answers again")
                away = False
                self.see(view)
            except LostChain:
                raise
            except Unavailable as error:
                if not away:
                    self.log(f"{error}; waiting")
                away = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.poke.wait(), self.poll_seconds)
            self.poke.clear()

    def see(self, view: RunView) -> None:
        """Take a new view of the chain."""
        if view == self.view:
            return
        if view.spec not in (ZERO_DIGEST, self.spec_digest):
            raise CorruptStore("the run on chain has another spec than this work folder", "use the run's own folder")
        before = self.state.opening
        self.view = view
        self.dispatch(ChainAdvanced(view))
        if self.state.opening != before:
            opening = self.state.opening
            self.spool.clear(name_of(opening) if opening else None)
            if opening:
                self.metrics.opened(opening)
                self.log(f"round {opening.round} open: step {opening.step}, {len(opening.cohort)} nodes")
            elif self.state.phase is Phase.FINISHED:
                self.log("the run is finished; serving until stopped")
        self.spawn(self.announce())

    async def tick(self) -> None:
        """Tell the machine the time."""
        while True:
            self.dispatch(TimerTicked(Seconds(int(self.now()))))
            await asyncio.sleep(min(self.poll_seconds, 1.0))

    def spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        """Run in the background; what it raises ends the process."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.done)

    def done(self, task: asyncio.Task[None]) -> None:
        """Forget a finished task; pass its failure on."""
        self.tasks.discard(task)
        if task.cancelled() or task.exception() is None or self.failed is None or self.failed.done():
            return
        self.failed.set_exception(task.exception() or FLBError("a task failed"))

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set, or something fails for good."""
        self.failed = asyncio.get_running_loop().create_future()
        self.spawn(self.follow_chain())
        self.spawn(self.tick())
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(
            lambda _: None if self.failed is None or self.failed.done() else self.failed.cancel()
        )
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self.failed
        finally:
            stopping.cancel()
            for task in list(self.tasks):
                task.cancel()
