# SPDX-License-Identifier: Apache-2.0
"""How soon a node is at work: from the aggregator's announcement of a round to the call that trains.

    python -m bench.work_start [--rounds N] [--json]

The product's aggregator on a real port with TLS, over a registry in memory, and the product's node daemon with a
function in the place of the trainer. Between the two lie one signed message, the check of its signature, and the
download of the new adapter (small here: `bench.transfer` measures large ones).
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path

from flb import identity
from flb.roster import RunView
from flb.store import BlobStore
from flb_aggregator.daemon import Daemon as Aggregator
from flb_node.daemon import Daemon
from flb_node.pipeline import Tensors, Train
from tests.served import Served, serve
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_for, small_spec

LAG_SECONDS = 0.3
"""How far the node's own view of the chain is behind: by itself it would start so much later."""


class Chain:
    """A node's registry port over the registry in memory, whose confirmed view lags."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.seen: list[tuple[float, RunView]] = []

    def head(self) -> RunView:
        """What the chain says now, the endpoint included."""
        endpoint = self.served.endpoint()
        return dataclasses.replace(self.served.registry.view(), uri=endpoint.uri, cert_digest=endpoint.cert_digest,
                                   aggregator=identity.address_of(AGGREGATOR_KEY))  # fmt: skip

    def view(self) -> RunView:
        """What it said a while ago."""
        now, head = time.monotonic(), self.head()
        if not self.seen or self.seen[-1][1] != head:
            self.seen.append((now, head))
        old = [view for moment, view in self.seen if moment <= now - LAG_SECONDS]
        return old[-1] if old else self.seen[0][1]

    def confirm(self, blocks: int) -> None:
        """Every block counts."""


class Inside:
    """The way in of a node that is a member with its dataset."""

    def knock(self, view: RunView) -> None:
        """It is in."""

    def enter(self, view: RunView, relay: object) -> bool:
        """It is in."""
        return True


def node_of(served: Served, folder: Path, train: Train) -> Daemon:
    """The product's node."""
    member = served.opening().cohort[0]
    return Daemon(
        domain=DOMAIN, node=member.node, key=key_for(member), chain=Chain(served),  # type: ignore[arg-type]
        blobs=BlobStore(folder / "blobs"), folder=folder, secret=bytes(32),
        dataset=(member.dataset_root, member.records), entrance=Inside(),  # type: ignore[arg-type]
        make_trainer=lambda spec: train, stop=threading.Event(),
        status=lambda state, **details: None, log=lambda text: None, poll_seconds=0.05,
    )  # fmt: skip


def measure(rounds: int) -> list[float]:
    """Milliseconds of every round but the first, in which the node connects."""
    announced: dict[int, float] = {}
    begun: list[float] = []
    real = Aggregator.announce

    async def announce(daemon: Aggregator) -> None:
        opening = daemon.state.opening
        if opening is not None:
            announced.setdefault(opening.round, time.monotonic())
        await real(daemon)

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: int) -> Tensors:
        begun.append(time.monotonic())
        return adapter

    Aggregator.announce = announce  # type: ignore[method-assign]
    spec = small_spec(steps=rounds + 1, min_nodes=1)
    with tempfile.TemporaryDirectory() as name, serve(Path(name) / "aggregator", spec, nodes=1) as served:
        folder = Path(name) / "node"
        folder.mkdir()
        daemon = node_of(served, folder, train)
        thread = threading.Thread(target=daemon.run, daemon=True)
        thread.start()
        thread.join(120)
        daemon.stop.set()
    return [1000 * (at - announced[number]) for number, at in enumerate(begun, 1)][1:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="From the announcement of a round to the start of training.")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    taken = measure(options.rounds)
    result = {
        "rounds": len(taken), "median_ms": round(statistics.median(taken), 1), "max_ms": round(max(taken), 1),
        "target_ms": 50,
    }  # fmt: skip
    print(json.dumps(result) if options.json else "\n".join(f"{key:12} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
