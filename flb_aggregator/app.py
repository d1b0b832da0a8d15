# SPDX-License-Identifier: Apache-2.0
"""Composition root of the aggregator: reads settings and key, builds every part once, serves until it is stopped."""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flb import keystore, planner
from flb import spec as specs
from flb.chain import membership_calls
from flb.chain.outbox import Outbox
from flb.chain.registry import Registry, call_view, find_deploy_block
from flb.chain.rpc import connect, is_local
from flb.chain.sender import Mined, Sender
from flb.config import Config, refuse_off_chain, require
from flb.config_file import load
from flb.delta import assert_ieee
from flb.errors import ConfigError, CorruptStore, Refused
from flb.journal import Journal
from flb.membership import Rules, SignedMessage, Slot
from flb.records import Roll
from flb.roster import RunView
from flb.spec import RunSpec
from flb.store import BlobStore, lock_folder
from flb.types import Address, Digest, Domain, Round
from flb_aggregator import publish, server
from flb_aggregator.certificate import Certificates
from flb_aggregator.daemon import Daemon
from flb_aggregator.intake import Spool
from flb_aggregator.metrics import Metrics
from flb_aggregator.relay import Relay, Relayed
from flb_aggregator.relay_budget import Budget
from flb_aggregator.rotation import Rotation, Turn
from flb_aggregator.service import Service
from flb_aggregator.sessions import Sessions

M_ARENA_MAX = -8
EXIT_SECONDS = 4.0
SPARE_BYTES = 64 << 20
"""Kept free on the disk besides the next adapter and its folder: records, journal, logs."""


@dataclass(slots=True)
class RelayOnChain:
    """The relay's port on a real chain."""

    sender: Sender
    run: Address

    def rules(self) -> Rules:
        """Admitter, end of the run, and time."""
        return membership_calls.read_rules(self.sender.rpc, self.run)

    def slot(self, node: Address) -> Slot:
        """What the contract holds of a node."""
        return membership_calls.read_slot(self.sender.rpc, self.run, node)

    def simulate(self, messages: Sequence[SignedMessage]) -> tuple[bool, ...]:
        """Which messages would take effect now."""
        return membership_calls.simulate(self.sender.rpc, self.run, messages)

    def relay(self, messages: Sequence[SignedMessage]) -> Relayed:
        """Send them."""
        mined = membership_calls.relay(self.sender, messages)
        return Relayed(mined.tx, mined.gas_used, membership_calls.skipped(mined, self.run))


@dataclass(slots=True)
class AggregatorChain:
    """The daemon's registry port on a real chain."""

    registry: Registry
    newest: Registry
    """The same run without confirmations; `registry` itself where it needs none."""
    sender: Sender
    lock: threading.Lock

    def view(self) -> RunView:
        """What holds now."""
        with self.lock:
            return self.registry.poll()

    def head(self) -> RunView:
        """What the newest block says."""
        with self.lock:
            return self.registry.view if self.newest is self.registry else self.newest.poll()

    def roll(self, roll: Roll) -> Mined:
        """Seal a round."""
        return self.sender.roll(roll)

    def expire(self, number: Round) -> Mined:
        """Void a round."""
        return self.sender.expire(number)


def log(text: str) -> None:
    """One line with the time, on stderr."""
    print(f"{time.strftime('%H:%M:%S')} aggregator: {text}", file=sys.stderr, flush=True)


def one_arena() -> None:
    """Keep glibc from growing a heap a thread: it would hold on to tens of MiB. Elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def run(path: Path) -> int:
    """Run the aggregator from a config file until SIGTERM or SIGINT. Raises FLBError."""
    one_arena()
    config = load(path)
    refuse_off_chain(config)
    server.endpoint_uri(config.server)
    assert_ieee()
    folder = config.server.workdir
    lock = lock_folder(folder)
    try:
        return asyncio.run(serve(config, folder))
    finally:
        lock.close()


def read_spec(folder: Path, blobs: BlobStore) -> tuple[RunSpec, Digest]:
    """The spec that `flb chain deploy` left in the work folder."""
    try:
        encoded = (folder / "spec.json").read_bytes()
    except OSError as error:
        raise ConfigError(f"{folder} holds no spec.json", "deploy the run from there with flb chain deploy") from error
    spec = planner.read_spec(encoded)
    blobs.put(encoded)
    adapter = publish.make_adapter_zero(spec.tensors, spec.training.seed, blobs)
    if adapter.hex() != spec.adapter:
        raise CorruptStore("adapter 0 does not follow from spec.json", "restore the file that was deployed")
    return spec, specs.digest_of(encoded)


def read_run(config: Config, folder: Path) -> tuple[Address, int | None]:
    """Address and deploy block, from the config or from what `flb chain deploy` left."""
    note = folder / "run.json"
    if note.exists():
        try:
            fields = json.loads(note.read_text())
            address, block = Address(bytes.fromhex(fields["run"][2:])), int(fields["deploy_block"])
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptStore(f"{note} is damaged", "restore it, or delete it and set chain.run") from error
        if config.chain.run in (None, "0x" + address.hex()):
            return address, block
    wanted = require(config.chain.run, "chain.run", "flb chain deploy prints it")
    return Address(bytes.fromhex(wanted[2:])), None


def build(config: Config, folder: Path) -> Daemon:
    """Every part, once."""
    store = require(config.server.keystore, "server.keystore", "make one with flb account new")
    password = keystore.password_file(config.server.password_file)
    where = require(password, "server.password_file", "name a file with the keystore's password")
    if (role := keystore.stored_role(store)) not in (None, "aggregator"):
        log(f"{store} was made for the role {role}, and acts as aggregator here")
    key = keystore.load(store, keystore.read_password(where))
    blobs = BlobStore(folder / "blobs", sweep=True)
    spec, spec_digest = read_spec(folder, blobs)
    address, deploy_block = read_run(config, folder)
    rpc = connect(config.chain.rpc)
    domain = Domain(rpc.chain_id(), address)
    if deploy_block is None:
        deploy_block = find_deploy_block(rpc, address)
    registry = Registry(rpc, domain, deploy_block, spec.rounds.confirmations)
    newest = Registry(rpc, domain, deploy_block) if spec.rounds.confirmations else registry
    reserve = SPARE_BYTES + 2 * blobs.path(Digest(bytes.fromhex(spec.adapter))).stat().st_size
    spool = Spool(folder / "spool", blobs, reserve)
    spool.folder.mkdir(exist_ok=True)
    return Daemon(
        spec=spec,
        spec_digest=spec_digest,
        domain=domain,
        key=key,
        chain=AggregatorChain(
            registry, newest, Sender(rpc, key, address, outbox=Outbox(folder / "outbox.sqlite")), threading.Lock()
        ),
        journal=Journal(folder / "journal.sqlite"),
        blobs=blobs,
        spool=spool,
        adapters=folder / "adapters",
        metrics=Metrics(folder / "rounds.jsonl", time.monotonic),
        now=time.time,
        log=log,
        keep_updates=config.server.keep_updates,
        poll_seconds=0.25 if is_local(rpc.url) else 2.0,
    )


def make_relay(config: Config, folder: Path, daemon: Daemon, sender: Sender) -> Relay:
    """The relay with what it has spent today."""
    limits, run = config.server.relay, daemon.domain.run
    budget = Budget(
        folder / "relay.json", "0x" + run.hex(), limits.daily_gas, limits.joins_per_prefix_per_day, daemon.now
    )
    return Relay(daemon.domain, RelayOnChain(sender, run), budget, log, limits.batch_seconds)


def publish_endpoint(chain: AggregatorChain, rotation: Rotation, view: RunView) -> None:
    """Tell the registry where this aggregator listens and with which certificate, if it does not know."""
    (named,) = call_view(chain.registry.rpc, chain.registry.domain.run, "aggregator")
    if named != chain.sender.address:
        raise Refused(
            f"this key (0x{chain.sender.address.hex()}) is not the run's aggregator (0x{named.hex()})",
            "use the aggregator's keystore, or have the owner call setAggregator",
        )
    while rotation.turn(view) in (Turn.PREPARE, Turn.SWITCH):
        pass


async def serve(config: Config, folder: Path) -> int:
    """Serve and follow the chain until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: end(stop))
    daemon = await asyncio.to_thread(build, config, folder)
    view = await asyncio.to_thread(daemon.chain.view)
    chain = daemon.chain
    assert isinstance(chain, AggregatorChain)
    certificates = await asyncio.to_thread(Certificates, folder / "tls") if config.server.tls else None
    uri = server.endpoint_uri(config.server)
    rotation = Rotation(uri, certificates, chain.sender, log, time.monotonic)
    loop.add_signal_handler(signal.SIGHUP, rotation.request)
    relay = make_relay(config, folder, daemon, chain.sender)
    service = Service(daemon, Sessions(daemon.domain, daemon.now, lambda: rotation.accepted(daemon.view)), relay)
    running = await server.serve(service, config.server.listen, certificates)
    try:
        log(f"serving run 0x{daemon.domain.run.hex()} on {config.server.listen}{'' if certificates else ', plaintext'}")
        await asyncio.to_thread(publish_endpoint, chain, rotation, view)
        daemon.spawn(relay.run())
        daemon.spawn(rotation.follow(lambda: daemon.view, daemon.poll_seconds))
        await daemon.run(stop)
    finally:
        await server.stop(running)
        daemon.journal.close()
    log("stopped")
    return 0


def end(stop: asyncio.Event) -> None:
    """Stop, and within seconds whatever hangs: everything that counts is on disk."""
    stop.set()
    timer = threading.Timer(EXIT_SECONDS, lambda: os._exit(0))
    timer.daemon = True
    timer.start()
