# SPDX-License-Identifier: Apache-2.0
"""A round of bulk transfer with everything on, beside the bare limit in the same run.

    python -m bench.transfer --nodes N --mib 160 [--codec f32|bf16|mxint8|mxint4] [--rounds R] [--json]

A real local chain, the real aggregator process and N node processes with the product's uplink. A round counts from the
order to upload until the last node holds the next adapter, checked: TLS, sessions, signed manifests, spool with fsync,
admission, journal, receipt, aggregation, publishing, record, `roll` on the chain, announcement, download. What is left
out is training. The first round warms up: its nodes upload one after the other, which gives the speed of one stream.
The bare reference (`bench.bare`) runs before and after; medians count.
"""

import argparse
import contextlib
import dataclasses
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench import bare
from bench.payload import MIB_OF_32_LAYERS, llama_8b_r16
from flb import identity
from flb.chain import local, membership_calls
from flb.chain.sender import Sender
from flb.config import Config
from flb.config_file import load
from flb.roster import OpenRound
from flb.spec import RunSpec, ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import ZERO_ADDRESS, Digest
from flb_cli import deploy
from flb_cli.cache import cache_folder
from flb_cli.federation import Federation

MIB = 1 << 20
RECORDS = 100


def plan(layers: int, steps: int, codec: str) -> Callable[[Config, Path], RunSpec]:
    """A maker of the spec: `layers` of Llama-3.1-8B at rank 16, as many steps as are measured."""

    def make(config: Config, folder: Path) -> RunSpec:
        from flb_aggregator.publish import make_adapter_zero
        from tests.sim import small_spec

        tensors = llama_8b_r16(layers)
        adapter = make_adapter_zero(tensors, 0, BlobStore(folder / "blobs"))
        made = small_spec("factors", codec, steps=steps, round_seconds=3600, grace_seconds=3600)
        ring = dataclasses.replace(made.ring, norm_bound=16)
        return dataclasses.replace(
            made, tensors=tensors, adapter=adapter.hex(), ring=ring, salt=secrets.token_hex(32), audit="off",
            server_optimizer=ServerOptimizerSpec("sgd", 1.0),
        )  # fmt: skip

    return make


class Node:
    """One node process and its pipes."""

    def __init__(self, note: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "bench.transfer_node"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.peak = 0.0
        self.order(note)

    def order(self, order: dict[str, Any]) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """What it did."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a node of the bench ended; its error is above")
        said: dict[str, Any] = json.loads(line)
        self.peak = max(self.peak, said["peak_rss_mib"])
        return said


@contextlib.contextmanager
def federation(
    folder: Path, layers: int, steps: int, codec: str, nodes: int
) -> Iterator[tuple[Federation, list[Node]]]:
    """Chain, run, aggregator, members, node processes."""
    values = folder / "values"
    size = sum(tensor.size for tensor in llama_8b_r16(layers))
    values.write_bytes((np.random.default_rng(0).standard_normal(size, np.float32) * np.float32(1e-3)).tobytes())
    made = Federation(folder / "run", folder, [], {"run": {"membership": "open"}}, cache_folder())
    started: list[Node] = []
    with made as running:
        running.start_chain()
        keys = {name: running.account(name) for name in ("owner", "aggregator")}
        running.write_config("aggregator", port=local.free_port())
        running.owner = Sender(running.rpc(), keys["owner"])
        config = load(running.folder / "aggregator.yaml")
        done = deploy.deploy(config, keys["owner"], identity.address_of(keys["aggregator"]), plan(layers, steps, codec))
        running.watch(done)
        running.spawn("aggregator")
        view = running.await_view(lambda view: bool(view.uri), 60)
        try:
            for index in range(nodes):
                key, root = secrets.token_bytes(32), Digest(secrets.token_bytes(32))
                member = Sender(running.rpc(), key, done.run)
                local.fund(running.rpc(), member.address)
                membership_calls.join(member, ZERO_ADDRESS)
                membership_calls.register_dataset(member, member.address, root, RECORDS)
                started.append(Node({
                    "folder": str(folder / f"node-{index}"), "key": key.hex(), "run": done.run.hex(), "uri": view.uri,
                    "chain_id": done.chain_id, "aggregator": identity.address_of(keys["aggregator"]).hex(),
                    "spec": done.spec_digest.hex(), "dataset": root.hex(), "values": str(values),
                    "cert_digest": view.cert_digest.hex(),
                }))  # fmt: skip
            for node in started:
                node.answer()
            running.owner.start()
            yield running, started
        finally:
            for node in started:
                node.process.kill()
                node.process.wait()


def order_of(opened: OpenRound, do: str) -> dict[str, Any]:
    """What a node must know of the open round."""
    return {
        "do": do, "round": opened.round, "step": opened.step, "seed": opened.seed.hex(), "base": opened.base.hex()
    }  # fmt: skip


def forget(running: Federation, base: Digest) -> None:
    """Delete the updates of rounds before, as `bench.bare` does with its files, and for the same reason."""
    for path in (running.folder / "aggregator" / "blobs").iterdir():
        if path.stat().st_size > MIB and path.name != base.hex():
            path.unlink()


def one_round(running: Federation, nodes: list[Node], number: int, single: bool) -> dict[str, float]:
    """Seal, upload, wait, download; seconds of each part."""
    opened = running.await_view(lambda view: view.opening is not None and view.opening.round == number, 120).opening
    assert opened is not None
    time.sleep(0.5)  # the aggregator reads the chain as often as the bench does
    for node in nodes:  # one after the other: 64 nodes that seal at once would not fit
        node.order(order_of(opened, "seal"))
        node.answer()
    time.sleep(0.5)  # what was just sealed reaches the disk, and nobody else is at work when the clock starts
    forget(running, opened.base)
    start = time.perf_counter()
    for node in nodes:
        node.order(order_of(opened, "upload"))
        if single:
            node.answer()
    for node in nodes if not single else []:
        node.answer()
    uploaded = time.perf_counter()
    for node in nodes:
        node.order(order_of(opened, "download"))
    answers = [node.answer() for node in nodes]
    end = time.perf_counter()
    first = min(answer["waited"] for answer in answers)
    return {"round_s": end - start, "upload_s": uploaded - start, "download_s": end - uploaded - first}


def ours(nodes: int, layers: int, codec: str, rounds: int, parent: Path | None) -> dict[str, Any]:
    """The product's figures."""
    with (
        tempfile.TemporaryDirectory(dir=parent) as name,
        federation(Path(name), layers, rounds + 2, codec, nodes) as (running, started),
    ):
        measured = [one_round(running, started, number, number == 1) for number in range(1, rounds + 2)]
        running.await_view(lambda view: len(view.rolls) > rounds, 60)
        path = running.folder / "aggregator" / "rounds.jsonl"
        deadline = time.monotonic() + 10
        while len(path.read_text().splitlines()) <= rounds and time.monotonic() < deadline:
            time.sleep(0.1)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    streams = [upload["bytes"] / upload["stream_s"] / MIB for upload in lines[0]["uploads"].values()]
    update = next(iter(lines[0]["uploads"].values()))["bytes"] / MIB
    median = {part: statistics.median(figures[part] for figures in measured[1:]) for part in measured[0]}
    return {
        "nodes": nodes,
        "payload_mib": round(update, 2),
        "codec": codec,
        **{part: round(seconds, 3) for part, seconds in median.items()},
        "aggregate_s": statistics.median(line["aggregate_s"] for line in lines[1:]),
        "upload_mib_s": round(nodes * update / median["upload_s"]),
        "single_stream_mib_s": round(statistics.median(streams)),
        "single_check_s": statistics.median(upload["check_s"] for upload in lines[0]["uploads"].values()),
        "single_flush_s": statistics.median(upload["flush_s"] for upload in lines[0]["uploads"].values()),
        "aggregator_peak_rss_mib": max(line["peak_rss_mib"] for line in lines),
        "node_peak_rss_mib": max(node.peak for node in started),
        "rounds": [{part: round(seconds, 3) for part, seconds in figures.items()} for figures in measured],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A round of bulk transfer with everything on, beside the bare limit.")
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--mib", type=float, default=160, help="one update in float32 (default: 160)")
    parser.add_argument("--codec", choices=("f32", "bf16", "mxint8", "mxint4"), default="f32")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count (default: 3)")
    parser.add_argument("--no-bare", action="store_true", help="leave the bare reference out")
    parser.add_argument("--folder", type=Path, help="where files are made (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    options = parser.parse_args()
    layers = max(1, round(options.mib * 32 / MIB_OF_32_LAYERS))
    size = layers * MIB_OF_32_LAYERS * MIB // 32
    limit = [] if options.no_bare else bare.measure(options.nodes, size, options.rounds)
    result = ours(options.nodes, layers, options.codec, options.rounds, options.folder)
    if limit:
        limit += bare.measure(options.nodes, size, options.rounds)
        figures = bare.summary(limit, options.nodes, size / MIB)
        result |= {"bare_s": figures["total_s"], "bare": figures}
        result["ratio_to_bare"] = round(result["round_s"] / figures["total_s"], 2)
    print(json.dumps(result) if options.json else "\n".join(f"{key:26} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
