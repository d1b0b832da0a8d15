# SPDX-License-Identifier: Apache-2.0
"""Rounds on disk for tests of rules: a run of two modules, updates of which two are far away, and what they come to."""

import dataclasses
from pathlib import Path

import numpy as np

from flb.admission import layout_of, update_metadata
from flb.lora.mode import sent
from flb.spec_sections import AGGREGATION_RULES, AggregationSpec, RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.pipeline import Input, combine
from tests.sim import small_spec, write_blob

RANK = 2
MODULES = ("m.0.q", "m.1.down")
TENSORS = tuple(
    tensor
    for name, outputs, inputs in ((MODULES[0], 70, 130), (MODULES[1], 33_000, 100))
    for tensor in (
        TensorSpec(f"{name}.lora_A.weight", (RANK, inputs)),
        TensorSpec(f"{name}.lora_B.weight", (outputs, RANK)),
    )
)
COUNT = 9
ROBUST = tuple(rule for rule in AGGREGATION_RULES if rule != "mean")


def spec_for(rule: str, mode: str = "alternate", mixing: str = "none", **more: int | float) -> RunSpec:
    """A run of f = 2, every update counted once; its updates are f32, so that tests can write any value."""
    weights = str(more.pop("weights", "equal"))
    bucket = 2 if mixing == "bucketing" else 0
    chosen = AggregationSpec(
        rule=rule, byzantine=int(more.pop("byzantine", 2 if bucket == 0 else 1)), mixing=mixing, bucket=bucket,
        weights=weights, **more,
    )  # type: ignore[arg-type]  # fmt: skip
    return dataclasses.replace(small_spec(mode, "f32"), tensors=TENSORS, aggregation=chosen)


def draw(spec: RunSpec, step: int, count: int = COUNT, scale: float = 1e-3) -> list[dict[str, np.ndarray]]:
    """Values of each update; the first two are far from the others."""
    random = np.random.default_rng(7)
    updates = []
    for node in range(count):
        size = scale * (30 if node < 2 else 1)
        updates.append(
            {
                t.name: (random.standard_normal(t.shape) * size).astype("<f4")
                for t in sent(spec.lora_mode, TENSORS, Step(step))
            }
        )
    return updates


def files_of(spec: RunSpec, step: int, updates: list[dict[str, np.ndarray]], folder: Path) -> tuple[Path, list[Path]]:
    """The base adapter and the updates, on disk."""
    layout = layout_of(spec, Step(step))
    random = np.random.default_rng(1)
    values = b"".join((random.standard_normal(t.size) * 0.1).astype("<f4").tobytes() for t in TENSORS)
    header = container.header_of(layout.entries, update_metadata(bytes(32), bytes(20), bytes(32)))
    blobs = [header + b"".join(update[t.name].tobytes() for t in layout.tensors) for update in updates]
    base = write_blob(folder, container.adapter_header(TENSORS) + values)
    return base, [write_blob(folder, blob) for blob in blobs]


def combined(
    spec: RunSpec, step: int, updates: list[dict[str, np.ndarray]], folder: Path, weights: list[int] | None = None,
    threads: int = 1,
) -> tuple[bytes, bytes]:  # fmt: skip
    """The base's bytes and the adapter's."""
    base, paths = files_of(spec, step, updates, folder)
    out = bytearray()
    items = [Input(weight, path) for weight, path in zip(weights or [1] * len(paths), paths, strict=True)]
    combine(spec, Step(step), base, items, out.extend, threads)
    return base.read_bytes(), bytes(out)


def ring_of(spec: RunSpec, step: int, updates: list[dict[str, np.ndarray]]) -> np.ndarray:
    """(n, P) integers."""
    tensors = layout_of(spec, Step(step)).tensors
    flat = [np.concatenate([update[t.name].ravel() for t in tensors]).astype(np.float64) for update in updates]
    return np.rint(np.array(flat) * 2.0**32).astype(np.int64)
