# SPDX-License-Identifier: Apache-2.0
"""A real chain for tests: one Hardhat node a session, and a fresh run with funded accounts for each test."""

import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from flb.chain import local
from flb.chain.deploy import Settings, create_run, deploy_factory
from flb.chain.local import LocalChain
from flb.chain.registry import Registry
from flb.chain.rpc import Rpc
from flb.chain.sender import Mined, Sender
from flb.records import Roll
from flb.types import ZERO_ADDRESS, Address, Digest, Domain, Round, Seconds

ROOT = Path(__file__).resolve().parents[1]
SPEC = Digest(b"\x51" * 32)
ADAPTER = Digest(b"\xa0" * 32)
ROUND_SECONDS = 100
GRACE_SECONDS = 50
STEPS = 100


def cache() -> Path:
    """Where Hardhat is installed for tests; a checkout after `make setup` has it in place and needs none."""
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "flb"


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalChain]:
    """One Hardhat node."""
    path = tmp_path_factory.mktemp("chain") / "chain.log"
    with path.open("wb") as log, local.running(local.install(cache(), print), log) as running:
        yield running


@pytest.fixture
def rpc(chain: LocalChain) -> Rpc:
    """Its endpoint."""
    return Rpc(chain.url)


@pytest.fixture(scope="session")
def factory(chain: LocalChain) -> Address:
    """A factory on it."""
    return deploy_factory(account(Rpc(chain.url)))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A run that has not started, and accounts with coins."""

    rpc: Rpc
    run: Address
    domain: Domain
    created: Mined
    owner: Sender
    aggregator: Sender
    nodes: tuple[Sender, ...]

    def registry(self, confirmations: int = 0) -> Registry:
        """A reader that has read nothing yet."""
        return Registry(self.rpc, self.domain, self.created.block.number, confirmations)


@pytest.fixture
def deployed(rpc: Rpc, factory: Address) -> Deployed:
    """A fresh run."""
    return deploy(rpc, factory, steps=STEPS)


def account(rpc: Rpc) -> Sender:
    """A new account with coins."""
    sender = Sender(rpc, secrets.token_bytes(32))
    local.fund(rpc, sender.address, ether=1)
    return sender


def deploy(rpc: Rpc, factory: Address, steps: int = STEPS, admission: bool = False, **more: Any) -> Deployed:
    """A run of so many steps with two nodes that have not joined; with `admission` its owner invites. `more` are further
    settings."""
    owner, aggregator, *nodes = (account(rpc) for _ in range(4))
    settings = Settings(
        spec=SPEC,
        adapter=ADAPTER,
        steps=steps,
        round_seconds=ROUND_SECONDS,
        grace_seconds=GRACE_SECONDS,
        owner=owner.address,
        aggregator=aggregator.address,
        admitter=owner.address if admission else ZERO_ADDRESS,
        uri="127.0.0.1:7400",
        **more,
    )
    run, created = create_run(owner, factory, settings)
    for sender in (owner, aggregator, *nodes):
        sender.run = run
    domain = Domain(rpc.chain_id(), run)
    return Deployed(rpc, run, domain, created, owner, aggregator, tuple(nodes))


def a_roll(number: int) -> Roll:
    """A roll of random digests without a zero byte and the largest numbers, so that its calldata costs the most."""
    a, b, c, d, e = (Digest(bytes(1 + byte % 255 for byte in secrets.token_bytes(32))) for _ in range(5))
    return Roll(Round(number), a, b, c, d, e, accepted=2**32 - 1, weight_sum=2**64 - 1)


def mine(rpc: Rpc, blocks: int) -> None:
    """Add empty blocks."""
    rpc.call("hardhat_mine", hex(blocks))


def later(rpc: Rpc, seconds: int) -> Seconds:
    """Move the chain's clock and mine a block; returns its time."""
    rpc.call("evm_increaseTime", hex(seconds))
    rpc.call("evm_mine")
    return Seconds(int(rpc.call("eth_getBlockByNumber", "latest", False)["timestamp"], 16))


@contextmanager
def serving(answer: Callable[[Any], bytes | None]) -> Iterator[str]:
    """An HTTP endpoint on 127.0.0.1 that answers a JSON-RPC request; for None it cuts the connection."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if body is None:
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
