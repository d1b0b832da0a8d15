# SPDX-License-Identifier: Apache-2.0
"""Combining three updates of the demo's size, files to file, beside reading and writing the same bytes alone.

    python -m bench.aggregate [--nodes N] [--repeat R]

JSON on stdout: seconds (minimum of the repeats) of `flb_aggregator.pipeline.combine` and of the bare copy, in one run.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from flb.store import BlobStore
from flb.types import Step, TensorSpec
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.sim import members, small_spec, update_bytes, write_blob


def demo_tensors() -> tuple[TensorSpec, ...]:
    """LoRA of rank 8 on all linear layers of SmolLM2-135M: 30 layers, 2.4 million parameters."""
    shapes = {"q": (576, 576), "k": (192, 576), "v": (192, 576), "o": (576, 576), "gate": (1536, 576),
              "up": (1536, 576), "down": (576, 1536)}  # fmt: skip
    made = []
    for layer in range(30):
        for name, (d, k) in shapes.items():
            path = f"base_model.model.model.layers.{layer}.{name}_proj"
            made += [TensorSpec(f"{path}.lora_A.weight", (8, k)), TensorSpec(f"{path}.lora_B.weight", (d, 8))]
    return tuple(sorted(made, key=lambda tensor: tensor.name.encode()))


def bare(base: Path, inputs: list[Input], target: Path) -> None:
    """Read every file, write one, flush: what no implementation can avoid."""
    buffer = memoryview(bytearray(1 << 20))
    for item in inputs:
        with item.path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    with base.open("rb", buffering=0) as file, target.open("wb", buffering=0) as out:
        while count := file.readinto(buffer):
            out.write(buffer[:count])


def best(action, repeat: int) -> float:  # type: ignore[no-untyped-def]
    """Seconds of the fastest of `repeat` calls."""
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        action()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    spec = dataclasses.replace(small_spec(), tensors=demo_tensors())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = BlobStore(folder / "blobs")
        base = make_adapter_zero(spec.tensors, 0, store)
        inputs = [
            Input(100 + i, write_blob(folder / "updates", update_bytes(spec, Step(1), member, base)))
            for i, member in enumerate(members(options.nodes))
        ]

        def ours() -> None:
            with store.writer() as out:
                combine(spec, Step(1), store.path(base), inputs, out.write)
                out.commit()

        seconds = best(ours, options.repeat)
        limit = best(lambda: bare(store.path(base), inputs, folder / "copy"), options.repeat)
        result = {
            "nodes": options.nodes,
            "update_mib": round(inputs[0].path.stat().st_size / (1 << 20), 2),
            "combine_s": round(seconds, 4),
            "read_and_write_alone_s": round(limit, 4),
            "numpy": np.__version__,
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
