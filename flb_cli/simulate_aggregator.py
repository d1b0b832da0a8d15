# SPDX-License-Identifier: Apache-2.0
"""The aggregator of a simulated run: the round machine, intake and outcome of the daemon, fed one event at a time.

Effects are carried out at once, in the same thread. There is no journal: a simulated run that is killed begins anew.
"""

import hashlib
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from flb import admission, identity
from flb.errors import PeerFault
from flb.memory_registry import AGGREGATOR_KEY, MemoryRegistry
from flb.rounds import (
    ChainAdvanced,
    Combine,
    Effect,
    Event,
    PeerUpdateAdmitted,
    PeerUploadBegun,
    Phase,
    State,
    StepCombined,
    SubmitExpire,
    SubmitRoll,
    TimerTicked,
    name_of,
    step,
    work_of,
)
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Admitted, Digest, Domain, Manifest, Opening, Seconds
from flb_aggregator import outcome
from flb_aggregator.intake import Spool, Upload
from flb_aggregator.listing import last_record
from flb_node.pipeline import Sealed

CHUNK = 1 << 20
"""Bytes that are moved at a time."""


@dataclass(slots=True)
class Aggregator:
    """What the daemon holds, without chain, network and journal. `combine_seconds` is the time that making adapters took,
    `figures` what the newest adapter's making reported."""

    spec: RunSpec
    spec_digest: Digest
    domain: Domain
    registry: MemoryRegistry
    blobs: BlobStore
    spool: Spool
    adapters: Path
    combine_seconds: float = 0.0
    figures: dict[str, float] = field(default_factory=dict)
    state: State = field(init=False)

    def __post_init__(self) -> None:
        self.state = State(self.spec.rounds)

    def noise_key(self, count: int, name: str) -> bytes:
        """A noise key that follows from the run's salt, so that a simulation repeats: it protects nothing."""
        return hashlib.sha256(b"flb simulated noise" + bytes.fromhex(self.spec.salt) + name.encode()).digest()[:count]

    def opening(self) -> Opening | None:
        """The open round; None once the run is finished."""
        return None if self.state.phase is Phase.FINISHED else self.state.opening

    def follow(self) -> None:
        """Read the registry."""
        self.feed(ChainAdvanced(self.registry.view()))

    def tick(self, now: Seconds) -> None:
        """Let it be `now`, for the registry too."""
        self.registry.now = now
        self.feed(TimerTicked(now))

    def feed(self, event: Event) -> None:
        """One event, and all that follows from it."""
        events = deque([event])
        while events:
            self.state, effects = step(self.state, events.popleft())
            for effect in effects:
                events.extend(self.execute(effect))

    def execute(self, effect: Effect) -> list[Event]:
        """Carry out one effect; what it reports."""
        match effect:
            case Combine():
                started = time.perf_counter()
                self.figures.clear()
                roll = outcome.make(
                    self.spec, self.spec_digest, self.domain, effect.opening, effect.closing,
                    last_record(self.registry.view()), self.blobs, self.adapters,
                    self.figures.update, self.noise_key,
                )  # fmt: skip
                self.combine_seconds += time.perf_counter() - started
                self.figures |= outcome.figures_of(self.spec, effect.opening, effect.closing, self.blobs)
                return [StepCombined(name_of(effect.opening), roll, effect.opening.block)]
            case SubmitRoll():
                self.registry.roll(effect.roll)
            case SubmitExpire():
                self.registry.expire(effect.round)
            case _:
                return []  # nothing is journaled, and nobody watches
        self.spool.clear(None)
        return [ChainAdvanced(self.registry.view())]

    def deliver(self, manifest: Manifest, signature: bytes, sealed: Sealed) -> None:
        """What the service does with a stream: every check of admission in its order. Raises a PeerFault."""
        opening, work = self.state.opening, work_of(self.state)
        member = admission.check_manifest(
            manifest, signature, spec=self.spec, spec_digest=self.spec_digest, domain=self.domain, opening=opening,
            admitted=work.admitted.get(manifest.node),
        )  # fmt: skip
        assert opening is not None, "a manifest passes for an open round alone"
        self.feed(PeerUploadBegun(name_of(opening), manifest.node))
        upload = Upload(self.spool, manifest, 0)
        try:
            with sealed.path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    upload.write(chunk)
            upload.finish(self.spec, opening.step)
        except PeerFault:
            upload.close(discard=True)
            raise
        weight = admission.weight(self.spec, manifest, member)
        receipt = identity.receipt_hash(identity.receipt_for(manifest, weight))
        signed = identity.sign(AGGREGATOR_KEY, self.domain, receipt)
        self.feed(PeerUpdateAdmitted(name_of(opening), Admitted(manifest, signature, weight, signed)))
