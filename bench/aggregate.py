# SPDX-License-Identifier: Apache-2.0
"""Combining the updates of a round, files to file with fsync, beside reading and writing the same bytes alone.

    python -m bench.aggregate [--rule mean] [--mode factors] [--nodes 16] [--mib 160] [--codec f32] [--threads T]
        [--repeat R] [--optimizer sgd] [--json]

A rule other than the mean bears a fifth of the nodes. In the modes `factors` and `product` rules that compare updates do
so in product space, which costs the rank times as much as in modes that send one factor; `--mib` is then still the size
of the whole adapter, of which those send half.

`--mib` is the size of one update in float32: layers of Llama-3.1-8B at rank 16, 5 MiB each. Peak memory is that of a
fresh process that combines and does nothing else.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.payload import MIB_OF_32_LAYERS, RANK, llama_8b_r16
from flb import moments
from flb.admission import in_file_order, layout_of, update_metadata
from flb.codec import CODINGS, Raw, dither
from flb.delta import BLOCK
from flb.server_optimizer import OPTIMIZERS
from flb.spec import RunSpec, ServerOptimizerSpec, decode
from flb.spec_sections import AGGREGATION_RULES, AggregationSpec
from flb.store import BlobStore
from flb.types import Digest, LoraMode, Step, TensorSpec
from flb.wire import container
from flb_aggregator.metrics import peak_rss_mib
from flb_aggregator.moments import Moments
from flb_aggregator.pipeline import Input, combine

STEP = Step(1)
WEIGHT = 1000


def bare(base: Path, inputs: list[Input], target: Path) -> None:
    """Read every file, write one, flush it: what no implementation can avoid."""
    buffer = memoryview(bytearray(1 << 17))
    for item in inputs:
        with item.path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    with base.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        while count := file.readinto(buffer):
            out.write(buffer[:count])
        os.fsync(out.fileno())


def aggregation(rule: str, nodes: int) -> AggregationSpec:
    """The rule as the spec has it; robust ones bear a fifth of the nodes and count every update once."""
    if rule == "mean":
        return AggregationSpec()
    return AggregationSpec(rule=rule.replace("-", "_"), byzantine=nodes // 5, weights="equal")


def write_update(spec: RunSpec, node: int, path: Path) -> Path:
    """A legal update of normal values with a deviation of 1e-3; its node's number stands for its seed."""
    layout, coding = layout_of(spec, STEP), CODINGS[spec.wire_codec]
    random, draw = np.random.default_rng(node), dither.stream(bytes([node]) * 32)

    def coded(tensor: TensorSpec) -> Sequence[Raw]:
        return coding.encode(random.standard_normal(tensor.size, dtype=np.float32) * np.float32(1e-3), draw)

    with path.open("wb") as out:
        out.write(container.header_of(layout.entries, update_metadata(bytes(32), bytes(20), bytes(32))))
        for part in in_file_order(layout, coded):
            out.write(part)
    return path


def write_moments(spec: RunSpec, path: Path) -> None:
    """Moments as a step before the first would have left them, so that reading them counts too."""
    tau, block = 1e-4, np.empty((BLOCK, moments.optimizer_of(spec).moments))
    moments.start(spec, tau, block)
    with path.open("wb") as out:
        out.write(moments.header(spec, Step(STEP - 1), tau))
        for tensor in spec.tensors:
            for first in range(0, tensor.size, BLOCK):
                out.write(block[: tensor.size - first])


def only_combine(folder: Path, nodes: int, threads: int | None, repeat: int) -> dict[str, Any]:
    """Run in the child: seconds of the fastest of `repeat`, digest and peak memory."""
    spec, store = decode((folder / "spec").read_bytes()), BlobStore(folder / "blobs")
    inputs = [Input(WEIGHT + node, folder / f"update-{node}") for node in range(nodes)]
    base = store.path(Digest(bytes.fromhex(spec.adapter)))
    imports, seconds, digest = peak_rss_mib(), [], b""
    processor: list[float] = []
    for _ in range(repeat):
        start, used = time.perf_counter(), time.process_time()
        with store.writer() as out, store.writer() as state:
            kept = Moments(folder / "moments", state.write) if moments.keeps_moments(spec) else None
            combine(spec, STEP, base, inputs, out.write, threads, moments=kept)
            digest = out.commit()
            if kept is not None:
                state.commit()
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    peak = peak_rss_mib()
    return {
        "seconds": round(min(seconds), 3), "processor_seconds": round(min(processor), 3), "peak_rss_mib": round(peak, 1),
        "peak_above_imports_mib": round(peak - imports, 1), "digest": digest.hex(),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Make the files, combine them in a child, copy them here."""
    from flb_aggregator.publish import make_adapter_zero
    from tests.sim import small_spec

    layers = max(1, round(options.mib * 32 / MIB_OF_32_LAYERS))
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        store, spec = BlobStore(folder / "blobs"), small_spec(options.mode, options.codec)
        base = make_adapter_zero(llama_8b_r16(layers), 0, store)
        spec = dataclasses.replace(
            spec, tensors=llama_8b_r16(layers), adapter=base.hex(), aggregation=aggregation(options.rule, options.nodes),
            lora=dataclasses.replace(spec.lora, r=RANK, max_rank=RANK * options.nodes * (options.mode == "stack")),
            server_optimizer=ServerOptimizerSpec(options.optimizer, 1.0),
        )  # fmt: skip
        if moments.keeps_moments(spec):
            write_moments(spec, folder / "moments")
        (folder / "spec").write_bytes(spec.encode())
        inputs = [Input(1, write_update(spec, node, folder / f"update-{node}")) for node in range(options.nodes)]
        os.sync()  # what is still being written would slow both measurements
        child = [sys.executable, "-m", "bench.aggregate", "--child", str(folder), "--nodes", str(options.nodes)]
        child += ["--repeat", str(options.repeat), *(["--threads", str(options.threads)] if options.threads else [])]
        result: dict[str, Any] = json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
        alone = []
        for _ in range(options.repeat):
            start = time.perf_counter()
            bare(store.path(base), inputs, folder / "copy")
            alone.append(time.perf_counter() - start)
        size = inputs[0].path.stat().st_size
    return {
        **result, "rule": options.rule, "mode": options.mode, "nodes": options.nodes, "codec": options.codec,
        "optimizer": options.optimizer,
        "payload_mib": round(size / (1 << 20), 2), "read_and_write_alone_s": round(min(alone), 3),
    }  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", choices=[rule.replace("_", "-") for rule in AGGREGATION_RULES], default="mean")
    parser.add_argument("--mode", choices=[mode.value for mode in LoraMode], default="factors")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--mib", type=float, default=160, help="one update in float32 (default: 160)")
    parser.add_argument("--codec", choices=("f32", "bf16", "mxint8", "mxint4"), default="f32")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--optimizer", choices=tuple(OPTIMIZERS), default="sgd", help="server optimizer (default: sgd)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the system's temporary one)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(only_combine(options.child, options.nodes, options.threads, options.repeat)))
        return
    if options.mode in ("product", "stack") and options.rule in ("median", "trimmed-mean"):
        parser.error(f"{options.rule} looks at coordinates, of which mode {options.mode} has none of the product's")
    result = measure(options)
    print(json.dumps(result) if options.json else "\n".join(f"{name:24} {value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
