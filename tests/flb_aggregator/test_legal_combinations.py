# SPDX-License-Identifier: Apache-2.0
"""What legality allows does run: two rounds of every legal combination, from files to records."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flb import legality, records
from flb.forecast import adapter_bytes, at_rank, left_bytes
from flb.legality.declarations import DECLARED
from flb.records import Closing
from flb.spec_sections import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Admitted, Codec, Digest, Step, TensorSpec
from flb_aggregator import outcome
from flb_aggregator.publish import make_adapter_zero
from tests.sim import DOMAIN, PATH, manifest_for, opening, small_spec, update_bytes

pytestmark = pytest.mark.unit

VARIANTS: dict[str, dict[str, Any]] = {
    "factors": {}, "residual": {"mode": "factors", "residual_rank": 2}, "alternate": {}, "freeze_a": {}, "product": {},
    "aligned": {"mode": "product", "align": True}, "energy": {"mode": "product", "energy": 0.9},
    "stack": {"max_rank": 200},
}  # fmt: skip
NODES = 5
EVERY = 1 if os.environ.get("FLB_FULL") else 5
"""Of the legal combinations of one mode, rule and mixing so many share a test's time: one in five, all in the long form."""
TENSORS = (
    TensorSpec(f"{PATH}.lora_A.weight", (2, 19)), TensorSpec(f"{PATH}.lora_B.weight", (5, 2)),
    TensorSpec(f"{PATH}2.lora_A.weight", (2, 3)), TensorSpec(f"{PATH}2.lora_B.weight", (7, 2)),
)  # fmt: skip


def legal(variant: str, rule: str, mixing: str) -> Iterator[RunSpec]:
    """The legal specs of one mode, rule and mixing."""
    base = replace(small_spec(min_nodes=NODES, max_cohort=10), tensors=TENSORS)
    robust = DECLARED.rules[rule].robust
    codecs = itertools.cycle(codec.name.lower() for codec in Codec)
    for down, optimizer, weights, ranks in itertools.product(
        ("f32", "mxint8"), DECLARED.optimizers, ("examples", "equal"), ((), (1, 2))
    ):
        aggregation = replace(
            base.aggregation, rule=rule, mixing=mixing, weights=weights, byzantine=int(robust),
            bucket=2 if mixing == "bucketing" else 0,
        )  # fmt: skip
        spec = replace(
            base, down=down, codec=next(codecs), aggregation=aggregation,
            lora=replace(base.lora, **{"mode": variant, **VARIANTS[variant], "ranks": ranks}),
            server_optimizer=replace(base.server_optimizer, name=optimizer),
        )  # fmt: skip
        if mixing == "bucketing":  # buckets hide hostile updates: the smallest round is larger
            spec = replace(spec, aggregation=replace(aggregation, byzantine=0))
        if not legality.reasons(spec):
            yield spec


def rounds_of(spec: RunSpec, folder: Path, count: int) -> list[tuple[Digest, records.Record]]:
    """Adapter and record of `count` rounds of five nodes, whose ranks take turns where the run has several."""
    blobs, made, previous = BlobStore(folder / "blobs"), list[tuple[Digest, records.Record]](), ZERO_DIGEST
    base = make_adapter_zero(spec.tensors, spec.training.seed, blobs)
    digest = Digest(bytes(32))
    for number in range(1, count + 1):
        opened = opening(NODES, number, number, base)
        admitted = []
        for index, member in enumerate(opened.cohort):
            ranks = spec.lora.node_ranks
            shaped = at_rank(spec, ranks[index % len(ranks)])
            blob = update_bytes(shaped, Step(number), member, base)
            blobs.put(blob)
            admitted.append(Admitted(manifest_for(spec, opened, member, blob), bytes(65), 1 + index, bytes(65)))
        closing = Closing(tuple(admitted), (), ())
        roll = outcome.make(spec, digest, DOMAIN, opened, closing, previous, blobs, folder / "adapters")
        base, previous = roll.adapter_digest, roll.record_digest
        made.append((base, records.decode(blobs.get(previous))))
    return made


@pytest.mark.parametrize("variant", [v for v in VARIANTS if VARIANTS[v].get("mode", v) in DECLARED.modes])
@pytest.mark.parametrize(("rule", "mixing"), list(itertools.product(DECLARED.rules, DECLARED.mixings)))
def test_combine__legal_choices__make_adapters_of_the_planned_size(
    variant: str, rule: str, mixing: str, tmp_path: Path
) -> None:
    for index, spec in enumerate(itertools.islice(legal(variant, rule, mixing), 0, None, EVERY)):
        folder = tmp_path / str(index)
        made = rounds_of(spec, folder, 2)
        blobs = BlobStore(folder / "blobs")
        for step, (adapter, record) in enumerate(made, 1):
            values = safetensors.numpy.load(blobs.get(adapter))
            assert {tensor.name for tensor in spec.tensors} == set(values)
            assert all(np.isfinite(value).all() for value in values.values())
            at_most = adapter_bytes(spec, step, NODES)
            exact = not (DECLARED.modes[spec.lora.mode].restarts and spec.lora.ranks)
            assert len(blobs.get(adapter)) == at_most if exact else len(blobs.get(adapter)) <= at_most
            assert (record.optimizer_state != ZERO_DIGEST) == (
                DECLARED.optimizers[spec.server_optimizer.name].moments > 0
            )
            left = [d for d in (record.down, record.remainder, record.optimizer_state) if d != ZERO_DIGEST]
            assert sum(len(blobs.get(digest)) for digest in left) == left_bytes(spec, step)
            assert (record.down != ZERO_DIGEST) == spec.encodes_steps
        assert len({adapter for adapter, _ in made}) == 2, "each round moves the adapter"


def test_combine__some_choices__are_legal_in_every_mode() -> None:
    for variant in VARIANTS:
        if VARIANTS[variant].get("mode", variant) in DECLARED.modes and (variant != "residual" or DECLARED.residual):
            assert any(True for _ in legal(variant, "mean", "none")), variant
