# SPDX-License-Identifier: Apache-2.0
"""A whole aggregator on a real port, over the registry in memory: the daemon and service of the product, in a thread."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from flb import identity
from flb.chain.local import free_port
from flb.journal import Journal
from flb.membership import Kind
from flb.spec import RunSpec, digest_of
from flb.store import BlobStore
from flb.types import Admitted, Member, Opening
from flb_aggregator import server
from flb_aggregator.certificate import Certificates
from flb_aggregator.daemon import Daemon
from flb_aggregator.intake import Spool
from flb_aggregator.metrics import Metrics
from flb_aggregator.publish import make_adapter_zero
from flb_aggregator.relay import Relay, RelayChain
from flb_aggregator.relay_budget import GAS, Budget
from flb_aggregator.rotation import Rotation
from flb_aggregator.service import Service
from flb_aggregator.sessions import Sessions
from flb_node.channel import Endpoint, open_channel
from flb_node.uplink import Uplink
from tests.sim import AGGREGATOR_KEY, DOMAIN, MemoryRegistry, key_for, members


@dataclass
class Served:
    """The running aggregator and what a test needs of it."""

    folder: Path
    spec: RunSpec
    registry: MemoryRegistry
    address: str
    certificates: Certificates | None
    daemon: Daemon
    service: Service
    loop: asyncio.AbstractEventLoop
    lines: list[str] = field(default_factory=list)

    def uplink(self, member: Member) -> Uplink:
        """A node's client."""
        aggregator = identity.address_of(AGGREGATOR_KEY)
        return Uplink(self.endpoint(), DOMAIN, lambda: aggregator, member.node, key_for(member))

    def endpoint(self) -> Endpoint:
        """What the chain would say of it."""
        held = self.certificates
        return Endpoint(f"http://{self.address}") if held is None else Endpoint(self.address, held.current.digest)

    def channel(self) -> grpc.Channel:
        """A bare channel."""
        return open_channel(self.endpoint())[0]

    def opening(self) -> Opening:
        """The open round, once the daemon has seen it."""
        self.await_true(lambda: self.daemon.state.opening is not None)
        assert self.daemon.state.opening is not None
        return self.daemon.state.opening

    def admitted(self) -> dict[bytes, Admitted]:
        """What is admitted in the open round."""
        from flb.rounds import work_of

        return dict(work_of(self.daemon.state).admitted)

    def await_true(self, condition, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
        """Wait for the daemon."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"it did not happen; the aggregator said {self.lines}"
            time.sleep(0.01)


@contextmanager
def serve(
    folder: Path,
    spec: RunSpec,
    registry: MemoryRegistry | None = None,
    nodes: int = 3,
    tls: bool = True,
    relayed: RelayChain | None = None,
    joins: int = 100,
) -> Iterator[Served]:
    """Run an aggregator on `folder`, as a restart would, for the length of a block.

    With `relayed` it relays membership messages to that chain, up to the gas of so many `joins` a day.
    """
    import dataclasses

    folder.mkdir(exist_ok=True)
    blobs = BlobStore(folder / "blobs")
    adapter = make_adapter_zero(spec.tensors, spec.training.seed, blobs)
    spec = dataclasses.replace(spec, adapter=adapter.hex())
    blobs.put(spec.encode())
    if registry is None:
        registry = MemoryRegistry(spec, adapter)
        registry.now = type(registry.now)(int(time.time()))
        for member in members(nodes):
            registry.join(member)
        registry.start()
    (folder / "spool").mkdir(exist_ok=True)
    lines: list[str] = []
    address = f"127.0.0.1:{free_port()}"
    certificates = Certificates(folder / "tls") if tls else None
    ready = threading.Event()
    made: list[Served] = []
    stop: list[asyncio.Event] = []

    async def main() -> None:
        daemon = Daemon(
            spec=spec, spec_digest=digest_of(spec.encode()), domain=DOMAIN, key=AGGREGATOR_KEY, chain=registry,
            journal=Journal(folder / "journal.sqlite"), blobs=blobs, spool=Spool(folder / "spool", blobs),
            adapters=folder / "adapters", metrics=Metrics(folder / "rounds.jsonl", time.monotonic), now=time.time,
            log=lines.append, poll_seconds=0.02,
        )  # fmt: skip
        rotation = Rotation(address, certificates, registry, lines.append, time.monotonic)
        relay = None
        if relayed is not None:
            budget = Budget(folder / "relay.json", "0x" + DOMAIN.run.hex(), joins * GAS[Kind.JOIN], 8, time.time)
            relay = Relay(DOMAIN, relayed, budget, lines.append, batch_seconds=0.01)
        service = Service(daemon, Sessions(DOMAIN, time.time, lambda: rotation.accepted(daemon.view)), relay)
        running = await server.serve(service, address, certificates)
        loop = asyncio.get_running_loop()
        made.append(Served(folder, spec, registry, address, certificates, daemon, service, loop, lines))
        stop.append(asyncio.Event())
        ready.set()
        if relay is not None:
            daemon.spawn(relay.run())
        try:
            await daemon.run(stop[0])
        finally:
            await server.stop(running, 0.1)
            daemon.journal.close()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield made[0]
    finally:
        made[0].loop.call_soon_threadsafe(stop[0].set)
        thread.join(10)
