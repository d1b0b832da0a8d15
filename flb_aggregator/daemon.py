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

from flb import identity
from flb.errors import CorruptStore, FLBError, LostChain, Unavailable
from flb.journal import Journal
from flb.records import Roll
from flb.roster import RunView, draw
from flb.rounds import (
    KEPT,
    Announce,
    ChainAdvanced,
    Combine,
    Effect,
    Event,
    Fact,
    JournalClosing,
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
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Admitted, Digest, Domain, Manifest, Opening, Round, Seconds
from flb_aggregator import outcome, retention
from flb_aggregator.disk import wait_for_disk
from flb_aggregator.intake import Spool
from flb_aggregator.listing import last_record
from flb_aggregator.mean_gap import measure_when_quiet
from flb_aggregator.metrics import Metrics
from flb_aggregator.outbox import Outbox
from flb_aggregator.ports import Chain, Sent

YOUNG_SECONDS = 600.0
"""No younger blob is deleted: it may be on its way into the journal."""


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
    keep_updates: int | None = None
    """Updates of how many sealed rounds stay; None for all."""
    busy: Callable[[], bool] = lambda: False
    """Whether transfers are open; the service knows."""
    state: State = field(init=False)
    view: RunView = field(default_factory=RunView)
    ahead: Opening | None = None
    """A round that the newest block opened, before it has the run's confirmations."""
    ahead_record: Digest = ZERO_DIGEST
    """The record that made its base; zero for adapter 0."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    poke: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    outbox: Outbox = field(init=False)
    failed: asyncio.Future[None] | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One transition at a time: a fact is durable before the next one is looked at."""

    def __post_init__(self) -> None:
        self.outbox = Outbox(self.metrics, self.log)
        self.state = restore(self.spec.rounds, self.journal.facts())

    # ------------------------------------------------------------------ facts

    async def dispatch(self, event: Event) -> None:
        """One transition: compute, write event and effects down in one transaction, then start the effects.

        Where the disk refuses (OSError) the state stays as it was, so whoever comes again finds the same transition.
        A caller that is cancelled, as a cut call is, does not take a transition back that has begun.
        """
        await asyncio.shield(asyncio.ensure_future(self.transition(event)))

    async def transition(self, event: Event) -> None:
        """`dispatch`, once it has begun."""
        async with self.turn:
            state, effects = step(self.state, event)
            facts: list[Fact] = []
            if state is not self.state and isinstance(event, PeerUploadBegun | PeerUpdateAdmitted | StepCombined):
                facts.append(event)
            facts += [effect.fact for effect in effects if isinstance(effect, JournalClosing)]
            if facts:
                await asyncio.to_thread(self.journal.append, *facts)
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

    async def begin(self, manifest: Manifest) -> None:
        """A node whose manifest passed begins to send."""
        await self.dispatch(PeerUploadBegun((manifest.round, manifest.seed), manifest.node))

    async def admit(self, manifest: Manifest, signature: bytes, weight: int, norm: float) -> Admitted | None:
        """Sign the receipt, journal the update; None if intake closed in the meantime. Returns what counts."""
        receipt = identity.receipt_for(manifest, weight)
        signed = identity.sign(self.key, self.domain, identity.receipt_hash(receipt))
        name = (manifest.round, manifest.seed)
        await self.dispatch(PeerUpdateAdmitted(name, Admitted(manifest, signature, weight, signed)))
        work = self.state.works.get(name)
        admitted = work.admitted.get(manifest.node) if work else None
        if admitted is not None:
            told = "" if self.spec.privacy.central else f" norm {norm:.3f}"
            self.log(f"round {manifest.round}: admitted 0x{manifest.node.hex()[:8]}… weight {weight}{told}")
        return admitted

    # ---------------------------------------------------------------- effects

    async def combine(self, effect: Combine) -> None:
        """Make the adapter and the record; report `StepCombined`."""
        previous = last_record(self.view)
        started = self.now()
        while True:
            try:
                roll = await asyncio.to_thread(self.make, effect, previous)
                await self.dispatch(StepCombined(name_of(effect.opening), roll, effect.opening.block))
                break
            except OSError as error:
                await wait_for_disk(error, self.log)
        self.metrics.combined(effect.opening, effect.closing, self.now() - started, self.spec.down)
        self.log(
            f"round {effect.opening.round}: adapter {roll.adapter_digest.hex()[:12]}… from {roll.accepted} updates"
        )
        await measure_when_quiet(
            self.spec, effect.opening, effect.closing, self.blobs, self.metrics, self.busy, self.log
        )

    def make(self, effect: Combine, previous: Digest) -> Roll:
        """In a thread: everything that the round leaves."""
        return outcome.make(
            self.spec, self.spec_digest, self.domain, effect.opening, effect.closing, previous, self.blobs,
            self.adapters, lambda found: self.log(self.metrics.told(effect.opening.round, found)) if found else None,
        )  # fmt: skip

    async def submit(self, what: str, send: Callable[[], Sent]) -> None:
        """End the open round on the chain, and look at the chain at once."""
        opening, phase = self.state.opening, self.state.phase
        if opening is not None:
            still = (opening, phase)
            await self.outbox.submit(
                what, name_of(opening), send, lambda: (self.state.opening, self.state.phase) == still
            )
            self.poke.set()

    async def collect(self) -> None:
        """Delete what nothing needs any more."""
        own = {self.spec_digest, Digest(bytes.fromhex(self.spec.adapter))}
        deleted = await asyncio.to_thread(
            retention.collect, self.blobs, self.view, self.state, own, self.keep_updates, self.now() - YOUNG_SECONDS,
            self.spec.privacy.central,
        )  # fmt: skip
        if deleted:
            self.log(f"deleted {deleted} blobs that no round needs")
        async with self.turn:
            if self.view.opening:
                await asyncio.to_thread(self.journal.forget, Round(self.view.opening.round - KEPT))

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
                await self.see(view)
                await self.look_ahead(await asyncio.to_thread(self.chain.head))
            except LostChain:
                raise
            except Unavailable as error:
                if not away:
                    self.log(f"{error}; waiting")
                away = True
            except OSError as error:
                await wait_for_disk(error, self.log)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.poke.wait(), self.poll_seconds)
            self.poke.clear()

    async def look_ahead(self, head: RunView) -> None:
        """Announce what the newest block opened; nothing else follows from it."""
        now, opened = self.state.opening, head.opening
        newer = opened is not None and (now is None or (opened.round, opened.seed) != name_of(now))
        ahead = draw(opened, self.spec.rounds) if opened is not None and newer else None
        if ahead != self.ahead:
            self.ahead, self.ahead_record = ahead, last_record(head)
            await self.announce()

    async def see(self, view: RunView) -> None:
        """Take a new view of the chain."""
        if view == self.view:
            return
        if view.spec not in (ZERO_DIGEST, self.spec_digest):
            raise CorruptStore("the run on chain has another spec than this work folder", "use the run's own folder")
        before, seen = self.state.opening, self.view
        self.view = view
        try:
            await self.dispatch(ChainAdvanced(view))
        except OSError:
            self.view = seen
            raise
        if self.state.opening != before:
            opening = self.state.opening
            self.spool.clear(name_of(opening) if opening else None)
            if opening:
                self.metrics.opened(opening)
                self.spawn(self.collect())
                self.log(f"round {opening.round} open: step {opening.step}, {len(opening.cohort)} nodes")
            elif self.state.phase is Phase.FINISHED:
                outcome.forget_keys(self.adapters, self.domain.run)
                self.log("the run is finished; serving until stopped")
        self.spawn(self.announce())

    async def tick(self) -> None:
        """Tell the machine the time."""
        while True:
            try:
                await self.dispatch(TimerTicked(Seconds(int(self.now()))))
            except OSError as error:
                await wait_for_disk(error, self.log)
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
        self.failed = failed = asyncio.get_running_loop().create_future()
        self.spawn(self.follow_chain())
        self.spawn(self.tick())
        stopping = asyncio.ensure_future(stop.wait())
        stopping.add_done_callback(lambda _: None if failed.done() else failed.cancel())
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await failed
        finally:
            stopping.cancel()
            for task in list(self.tasks):
                task.cancel()
