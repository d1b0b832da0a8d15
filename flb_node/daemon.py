# SPDX-License-Identifier: Apache-2.0
"""The node's life: join, watch, train, seal, deliver, and end with the run.

The chain decides what is open; the aggregator's announcements only wake this loop earlier than the next poll would.
Whatever is finished is on disk before it is sent, so a node that is killed goes on where it was.
"""

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from flb import identity
from flb import spec as specs
from flb.errors import (
    AggregatorUnavailable,
    BadSignature,
    Busy,
    ClockSkew,
    DigestMismatch,
    Fatal,
    FLBError,
    Impostor,
    NotAMember,
    NotInCohort,
    PeerFault,
    Truncated,
    Unavailable,
    WrongRound,
)
from flb.roster import RunView, draw
from flb.rounds import Name
from flb.spec import RunSpec
from flb.store import BlobStore, write_atomic
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Manifest, Opening, Receipt
from flb_node import pipeline
from flb_node.channel import endpoint_of
from flb_node.pipeline import Sealed, Train
from flb_node.ports import Chain, Status
from flb_node.uplink import Uplink

RETRY_SECONDS = 1.0
"""Wait after the aggregator or the chain was away."""

JITTER = random.SystemRandom()
"""Spreads the nodes that a limit sent away at the same moment; nothing that counts depends on it."""

PASSING = (WrongRound, Truncated, DigestMismatch, BadSignature, NotInCohort, ClockSkew)
"""Refusals that say nothing about the update itself: the aggregator may lag behind the chain, or have restarted."""


def pause_after(error: FLBError) -> float:
    """Seconds until the next try: what a busy aggregator asked for, and up to half of that more."""
    if isinstance(error, Busy):
        return error.retry_seconds * (1 + JITTER.random() / 2)
    return RETRY_SECONDS


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
    make_trainer: Callable[[RunSpec], Train]
    stop: threading.Event
    status: Status
    log: Callable[[str], None]
    poll_seconds: float
    view: RunView = field(default_factory=RunView)
    spec: RunSpec | None = None
    train: Train | None = None
    uplink: Uplink | None = None
    wake: threading.Event = field(default_factory=threading.Event)
    done: set[Name] = field(default_factory=set)

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
        self.view = self.chain.view()
        self.ensure_member()
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
        """Until an announcement, or the next poll."""
        self.wake.wait(self.poll_seconds)
        self.wake.clear()

    # ----------------------------------------------------------- membership

    def ensure_member(self) -> None:
        """Join and register the dataset, once each, whatever came before."""
        root, records = self.dataset
        if self.view.finished:
            return
        if self.node not in self.view.members:
            if self.chain.was_member(self.node):
                raise NotAMember(
                    "this node left the run or was removed from it", "ask the operator, then join with another key"
                )
            self.status("joining")
            self.chain.join()
            self.view = self.chain.view()
        if (self.node, root) not in self.view.datasets:
            self.chain.register_dataset(root, records)
            self.log(f"registered a dataset of {records} records")
            self.view = self.chain.view()

    def connect(self) -> None:
        """Reach the aggregator that the chain names, and get the run spec once."""
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
        if self.spec is None and self.view.spec != ZERO_DIGEST:
            self.spec = specs.decode(uplink.get_run(self.view.spec))
            self.chain.confirm(self.spec.rounds.confirmations)
        if self.spec is not None and self.train is None and not self.view.finished:
            self.status("loading the model")
            self.train = self.make_trainer(self.spec)

    def disconnect(self) -> None:
        """Give the channel up: the next one fetches the certificate anew and compares it with the chain."""
        if self.uplink is not None:
            self.uplink.close()
            self.uplink = None

    def watch(self, uplink: Uplink) -> None:
        """Wake the loop at every announcement; polling goes on where the stream is down."""
        while not self.stop.is_set() and self.uplink is uplink:
            try:
                for _ in uplink.watch():
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
        self.status("downloading", round=opening.round)
        self.fetch(opening.base, spec)
        sealed = pipeline.seal_update(
            spec,
            opening.step,
            opening.base,
            run=self.domain.run,
            node=self.node,
            secret=self.secret,
            blobs=self.blobs,
            folder=self.folder,
            train=self.train,
        )
        try:
            receipt, signature = self.deliver(opening, sealed, spec)
            self.keep(receipt, signature)
            self.status("delivered", round=opening.round, weight=receipt.weight)
            self.log(f"round {opening.round}: delivered {sealed.size} bytes, weight {receipt.weight}")
        except WrongRound:
            self.log(f"round {opening.round} closed before this node's update was in; it stays sealed")
        except PeerFault as error:
            self.status("refused", round=opening.round, reason=str(error))
            self.log(f"round {opening.round}: the aggregator refused the update: {error}")
        self.done.add((opening.round, opening.seed))

    def deliver(self, opening: Opening, sealed: Sealed, spec: RunSpec) -> tuple[Receipt, bytes]:
        """Sign for this opening and send until there is a receipt, a refusal, or another round."""
        member = next(member for member in opening.cohort if member.node == self.node)
        manifest = Manifest(
            node=self.node,
            round=opening.round,
            seed=opening.seed,
            spec=self.view.spec,
            base=opening.base,
            digest=sealed.digest,
            tensor_root=ZERO_DIGEST,
            dataset_root=member.dataset_root,
            size=sealed.size,
            examples=self.dataset[1],
            codec=spec.wire_codec,
        )
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
        try:
            return self.uplink.download(adapter, self.blobs, lambda done, size: None, limit=pipeline.adapter_size(spec))
        except Impostor:
            raise
        except PeerFault as error:
            raise Unavailable(
                f"the aggregator does not give the adapter that the chain names ({error.what})"
            ) from error

    def keep(self, receipt: Receipt, signature: bytes) -> None:
        """The receipt is this node's proof: on disk before the round counts as done."""
        fields = {
            name: value if isinstance(value, int) else "0x" + value.hex()
            for name, value in ((name, getattr(receipt, name)) for name in Receipt.__slots__)
        }
        fields["signature"] = "0x" + signature.hex()
        path = self.folder / f"receipt-{receipt.round:04d}-{receipt.seed.hex()[:16]}.json"
        write_atomic(path, json.dumps(fields, indent=2).encode())

    def fetch_last(self) -> None:
        """The run is over: fetch its last adapter, checked against the chain."""
        assert self.uplink is not None
        if self.spec is None:
            raise Fatal("the run ended before it started", "ask the operator for a new run")
        path = self.fetch(self.view.adapter, self.spec)
        self.status("finished", adapter=str(path))
        self.log(f"the run is finished; its last adapter is {path}")
