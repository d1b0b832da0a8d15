# SPDX-License-Identifier: Apache-2.0
"""The node's life: join, watch, train, seal, deliver, and end with the run.

The chain decides what is open; the aggregator's announcements only wake this loop earlier than the next poll would.
Whatever is finished is on disk before it is sent, so a node that is killed goes on where it was.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flb import identity, planner
from flb.errors import AggregatorUnavailable, Fatal, Impostor, PeerFault, TrainingFailed, Unavailable, WrongRound
from flb.membership import SignedMessage
from flb.roster import RunView, draw
from flb.rounds import Name
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Manifest, Opening, Receipt, Round, Step
from flb_node import early, pipeline, receipts, retention
from flb_node.answers import Announcement, Relayed
from flb_node.channel import endpoint_of
from flb_node.download import fetch_adapter, keep_record, record_of
from flb_node.entrance import Entrance
from flb_node.evaluation import Evaluation, NoEvaluation
from flb_node.faults import PASSING, RETRY_SECONDS, pause_after
from flb_node.local_privacy import LocalPrivacy
from flb_node.pipeline import Sealed, Train
from flb_node.ports import Chain, Status
from flb_node.uplink import Uplink


@dataclass(slots=True)
class Daemon:
    """Everything the process holds; built by `flb_node.app`."""

    domain: Domain
    node: Address
    key: bytes
    chain: Chain
    blobs: BlobStore
    folder: Path
    secret: bytes
    dataset: tuple[Digest, int]
    entrance: Entrance
    make_trainer: Callable[[RunSpec], Train]
    stop: threading.Event
    status: Status
    log: Callable[[str], None]
    poll_seconds: float
    check: Callable[[RunSpec], None] = lambda spec: None  # raises Fatal for a run in which this node is of no use
    evaluation: Evaluation | NoEvaluation = field(default_factory=NoEvaluation)
    keep_steps: int | None = None  # `client.keep_steps`
    privacy: LocalPrivacy | None = None  # keys and ledger, for a run with local privacy
    rank: int | None = None  # `client.rank`
    view: RunView = field(default_factory=RunView)
    spec: RunSpec | None = None
    train: Train | None = None
    uplink: Uplink | None = None
    wake: threading.Event = field(default_factory=threading.Event)
    done: set[Name] = field(default_factory=set)
    announced: Announcement | None = None
    """The newest one, from another thread."""

    # -------------------------------------------------------------- the loop

    def run(self) -> None:
        """Until the run is finished or `stop` is set. Raises Fatal for what cannot be mended here."""
        while not self.stop.is_set():
            try:
                if self.cycle():
                    return
            except Unavailable as error:
                if isinstance(error, AggregatorUnavailable):
                    self.disconnect()
                self.status("waiting", reason=error.what)
                self.log(f"{error}; trying again")
                self.stop.wait(pause_after(error))

    def cycle(self) -> bool:
        """One look at the chain and what follows from it; True when the run is over."""
        self.prepare()
        self.view = self.chain.view()
        if not self.view.finished:
            if self.spec is None:
                self.entrance.knock(self.view)
                self.learn()  # before joining, and before the run has started
            if not self.entrance.enter(self.view, self.relay):
                self.status("joining")
                self.wait()
                return False
        self.connect()
        if self.view.finished:
            self.fetch_last()
            return True
        opened = self.view.opening
        if opened is None or self.spec is None:
            self.status("waiting", reason="the run has not started")
            self.wait()
            return False
        opening = draw(opened, self.spec.rounds)
        if (opening.round, opening.seed) in self.done:
            self.wait()
        elif self.node not in {member.node for member in opening.cohort}:
            self.status("waiting", reason="not drawn for this round", round=opening.round)
            self.wait()
        else:
            self.work(opening, self.spec)
        return False

    def wait(self) -> None:
        """Until an announcement, or the next poll; in the meantime adapters are measured."""
        if not self.evaluation.advance(self.wake.is_set, self.poll_seconds):
            self.wake.wait(self.poll_seconds)
        self.wake.clear()

    # ------------------------------------------------------------ connection

    def relay(self, signed: SignedMessage) -> Relayed:
        """Hand a membership message to the aggregator."""
        return self.reach().relay(signed)

    def reach(self) -> Uplink:
        """A channel to the aggregator that the chain names. Raises Unavailable."""
        endpoint = endpoint_of(self.view)
        if not endpoint.uri:
            raise Unavailable("the registry names no aggregator endpoint yet", "wait for the operator to start it")
        if (uplink := self.uplink) is None or not endpoint.keeps(uplink.endpoint.uri, uplink.cert_digest):
            self.disconnect()
            try:
                uplink = Uplink(endpoint, self.domain, lambda: self.view.aggregator, self.node, self.key)
            except Impostor as error:  # or the chain is behind the aggregator: read it again before the next try
                raise Unavailable(error.what, error.remedy) from error
            self.uplink = uplink
            threading.Thread(target=self.watch, args=(uplink,), daemon=True).start()
        return uplink

    def connect(self) -> None:
        """Reach the aggregator, and load the model once the run has started."""
        self.reach()
        if self.view.spec == ZERO_DIGEST:
            return
        spec = self.learn()
        if self.train is None and not self.view.finished:
            self.status("loading the model")
            self.train = self.make_trainer(spec)

    def learn(self) -> RunSpec:
        """The run spec, fetched once; while the run goes on it is checked first that this node can take part.

        Raises Unavailable without an aggregator, Impostor for another spec than the contract names, Refused for choices
        that do not go together, and what `check` raises.
        """
        if self.spec is None:
            started = self.view.spec != ZERO_DIGEST
            spec = planner.read_spec(self.reach().get_run(self.view.spec if started else self.chain.spec()))
            if not self.view.finished:
                self.status("checking the data")
                self.check(spec)
            self.chain.confirm(spec.rounds.confirmations)
            self.spec = spec
        return self.spec

    def disconnect(self) -> None:
        """Give the channel up: the next one fetches the certificate anew and compares it with the chain."""
        if self.uplink is not None:
            self.uplink.close()
            self.uplink = None

    def watch(self, uplink: Uplink) -> None:
        """Wake the loop at every announcement; polling goes on where the stream is down."""
        while not self.stop.is_set() and self.uplink is uplink:
            try:
                for announcement in uplink.watch():
                    self.announced = announcement
                    self.wake.set()
            except Impostor as error:
                self.log(str(error))
            except (Unavailable, PeerFault, ValueError):  # ValueError: the channel was closed by us
                uplink.token = ""
            self.stop.wait(RETRY_SECONDS)

    # ------------------------------------------------------------- one round

    def work(self, opening: Opening, spec: RunSpec) -> None:
        """Train, seal and deliver for one opening; a refused update ends this node's part in it."""
        assert self.uplink is not None and self.train is not None
        try:
            sealed = self.seal(opening.round, opening.step, opening.base, spec)
            receipt, signature = self.deliver(opening, sealed, spec)
            receipts.write(self.folder, receipt, signature)
            self.status("delivered", round=opening.round, weight=receipt.weight)
            self.log(f"round {opening.round}: delivered {sealed.size} bytes, weight {receipt.weight}")
        except WrongRound:
            self.log(f"round {opening.round} closed before this node's update was in; it stays sealed")
        except (PeerFault, TrainingFailed) as error:
            self.status("refused", round=opening.round, reason=str(error))
            self.log(f"round {opening.round}: no update of this node counts: {error}")
        self.done.add((opening.round, opening.seed))
        self.evaluation.add(spec, Step(opening.step - 1), opening.base)
        retention.tidy(self.folder, self.blobs, self.view, opening.step, self.keep_steps, self.evaluation.waiting())

    def prepare(self) -> None:
        """Begin with a round as soon as it is announced, before this node's own RPC shows it under its confirmations.

        Only the start is early: the update is sealed once the newest block there says the same, and sent once it is
        confirmed.
        """
        told, spec = self.announced, self.spec
        if told is None or spec is None or self.train is None or self.uplink is None:
            return
        if not early.is_news(told, self.view, self.node):
            return
        try:
            wait = partial(
                early.await_block, told, self.chain, self.stop, self.poll_seconds, self.log,
                lambda: self.announced in (told, None),
            )  # fmt: skip
            self.seal(told.round, told.step, told.base, spec, wait)
        except (WrongRound, TrainingFailed) as error:
            self.log(str(error))
            self.announced = None
            if isinstance(error, TrainingFailed):
                self.done.add((told.round, told.seed))

    def seal(
        self, number: Round, step: Step, base: Digest, spec: RunSpec, confirm: Callable[[], None] = lambda: None
    ) -> Sealed:
        """The update of a step, from the disk or from training."""
        assert self.train is not None
        self.status("downloading", round=number, step=step)
        self.fetch(base, spec)
        return pipeline.seal_update(
            spec, step, base, run=self.domain.run, node=self.node, secret=self.secret, blobs=self.blobs,
            folder=self.folder, train=self.train, confirm=confirm, rank=self.rank, privacy=self.privacy,
        )  # fmt: skip

    def deliver(self, opening: Opening, sealed: Sealed, spec: RunSpec) -> tuple[Receipt, bytes]:
        """Sign for this opening and send until there is a receipt, a refusal, or another round."""
        member = next(member for member in opening.cohort if member.node == self.node)
        manifest = Manifest(
            node=self.node, round=opening.round, seed=opening.seed, spec=self.view.spec, base=opening.base,
            digest=sealed.digest, tensor_root=ZERO_DIGEST, dataset_root=member.dataset_root, size=sealed.size,
            examples=self.dataset[1], codec=spec.wire_codec,
        )  # fmt: skip
        signature = identity.sign(self.key, self.domain, identity.manifest_hash(manifest))
        while True:
            assert self.uplink is not None
            try:
                self.status("uploading", round=opening.round)
                return self.uplink.deliver(
                    manifest,
                    signature,
                    sealed.path,
                    lambda done, size: self.status("uploading", round=opening.round, sent=done, size=size),
                    sealed.codec_error,
                )
            except (Unavailable, *PASSING) as error:
                if isinstance(error, AggregatorUnavailable):
                    self.disconnect()
                self.log(str(error))
                if self.stop.wait(pause_after(error)):
                    raise Unavailable("this node was told to stop", "start it again") from error
                self.view = self.chain.view()
                now = self.view.opening
                if now is None or (now.round, now.seed) != (opening.round, opening.seed):
                    raise WrongRound(f"round {opening.round} is over", "the update stays sealed") from error
                self.connect()

    def fetch(self, adapter: Digest, spec: RunSpec) -> Path:
        """An adapter that the chain names. An aggregator that does not give it lags, or breaks: ask again."""
        assert self.uplink is not None
        record = record_of(adapter, self.view, self.announced)
        try:
            path = fetch_adapter(self.uplink, self.blobs, spec, adapter, record, self.log)
        except Impostor:
            raise
        except PeerFault as error:
            raise Unavailable(
                f"the aggregator does not give the adapter that the chain names ({error.what})"
            ) from error
        keep_record(self.uplink, self.blobs, adapter, self.view, self.log)
        return path

    def fetch_last(self) -> None:
        """The run is over: fetch its last adapter, checked against the chain."""
        assert self.uplink is not None
        if self.spec is None:
            raise Fatal("the run ended before it started", "ask the operator for a new run")
        path = self.fetch(self.view.adapter, self.spec)
        self.evaluation.add(self.spec, Step(len(self.view.rolls)), self.view.adapter)
        self.evaluation.advance(self.stop.is_set, float("inf"))
        if not self.blobs.has(self.view.adapter):  # damaged, as reading it has shown
            path = self.fetch(self.view.adapter, self.spec)
        self.log(f"the run is finished; its last adapter is {path}")
        self.status("finished", adapter=str(path))
