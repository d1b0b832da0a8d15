# SPDX-License-Identifier: Apache-2.0
"""The engine of simulated runs on the product's own pipelines, with arithmetic in the place of training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flb import records
from flb.attacks import ATTACKS
from flb.chain.events import from_json, to_json
from flb.errors import Refused
from flb.lora.mode import sent
from flb.spec import RunSpec, ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.publish import make_adapter_zero
from flb_cli import simulate_attack, simulate_node
from flb_cli.replay import replay
from flb_cli.simulate_attack import Attackers
from flb_cli.simulate_engine import Serial
from flb_cli.simulate_run import open_aggregator
from flb_node.pipeline import Tensors, Train
from tests.sim import small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()
CODECS = ("f32", "bf16", "mxint8", "mxint4")


def trainer(number: int) -> Train:
    """Moves everything by a step of the node's own, towards about 0.01."""

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
        random = np.random.default_rng([number, seed])
        return {
            name: value + (random.normal(1e-2, 1e-3, value.shape)).astype(np.float32) if name in names else value
            for name, value in adapter.items()
        }

    return train


def simulate(
    folder: Path, spec: RunSpec = SPEC, nodes: int = 5, attackers: Attackers | None = None, rank: int | None = None
) -> Serial:
    """A finished run."""
    folder.mkdir(exist_ok=True)
    adapter = make_adapter_zero(spec.tensors, spec.training.seed, BlobStore(folder / "blobs"))
    spec = replace(spec, adapter=adapter.hex())
    aggregator = open_aggregator(spec, folder)
    made = [
        simulate_node.make(
            number, spec.salt, [b"%d" % number] * 10, folder / "nodes" / str(number), trainer(number), rank
        )
        for number in range(1, nodes + 1)
    ]
    engine = Serial(aggregator, made, BlobStore(folder / "nodes" / "blobs"), attackers or Attackers())
    engine.run()
    return engine


def verdict(engine: Serial) -> str:
    """Of a replay from the events as they are written down."""
    aggregator = engine.aggregator
    lines = [json.dumps(to_json(event)) for event in aggregator.registry.events]
    events = [from_json(json.loads(line)) for line in lines]
    blobs = aggregator.blobs
    report = replay(events, aggregator.domain, lambda digest: blobs.path(digest) if blobs.has(digest) else None)
    assert report.findings == []
    return report.verdict


def last(engine: Serial) -> dict[str, np.ndarray]:
    """The last adapter."""
    aggregator = engine.aggregator
    return safetensors.numpy.load_file(aggregator.blobs.path(aggregator.registry.view().adapter))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("mode", "down"), [("factors", "f32"), ("alternate", "mxint8"), ("freeze_a", "f32")])
def test_run__honest__seals_every_round_and_replays_exactly(tmp_path: Path, codec: str, mode: str, down: str) -> None:
    engine = simulate(tmp_path, small_spec(mode, codec, down))
    assert [line["accepted"] for line in engine.lines] == [5, 5, 5] and engine.rejected == []
    assert verdict(engine) == "exact"
    assert (tmp_path / "adapters" / "step-0003" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize("lora", [{"mode": "product"}, {"residual_rank": 1}], ids=["product", "residual"])
def test_run__mode_that_computes_in_float64__is_certified(tmp_path: Path, lora: dict[str, Any]) -> None:
    engine = simulate(tmp_path, replace(SPEC, lora=replace(SPEC.lora, **lora)))
    assert [line["accepted"] for line in engine.lines] == [5, 5, 5] and verdict(engine) == "certified"
    assert all(0 <= line["gap"] < 1 for line in engine.lines)


def test_run__stack__grows_by_the_ranks_of_all_and_replays_exactly(tmp_path: Path) -> None:
    lora = replace(SPEC.lora, mode="stack", max_rank=30)
    engine = simulate(tmp_path, replace(SPEC, lora=lora, rounds=replace(SPEC.rounds, max_cohort=5)))
    assert verdict(engine) == "exact"
    assert {value.shape[0] for name, value in last(engine).items() if ".lora_A." in name} == {3 * 5 * 2}


@pytest.mark.parametrize("mode", ["product", "stack"])
@pytest.mark.parametrize("attack", ["sign-flip", "alie", "gauge"])
def test_run__attacked_in_another_mode__goes_on(tmp_path: Path, mode: str, attack: str) -> None:
    lora = replace(SPEC.lora, mode=mode, ranks=(1, 2), max_rank=20 * (mode == "stack"))
    spec = replace(SPEC, lora=lora, rounds=replace(SPEC.rounds, max_cohort=5, steps=2))
    engine = simulate(tmp_path, spec, attackers=Attackers(attack, 1, ATTACKS[attack].strength), rank=1)
    assert verdict(engine) in ("exact", "certified") and engine.rejected == []


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_run__server_optimizer__replays_exactly(tmp_path: Path, name: str) -> None:
    optimizer = ServerOptimizerSpec(name, 0.5)
    assert verdict(simulate(tmp_path, replace(SPEC, server_optimizer=optimizer))) == "exact"


def test_run__again__gives_the_same_events(tmp_path: Path) -> None:
    one, two = (simulate(tmp_path / name).aggregator.registry.events for name in "ab")
    assert one == two


@pytest.mark.parametrize("change", ["seed", "salt"])
def test_run__another_seed_or_salt__gives_another_adapter(tmp_path: Path, change: str) -> None:
    other = (
        replace(SPEC, salt="11" * 32) if change == "salt" else replace(SPEC, training=replace(SPEC.training, seed=1))
    )
    one, two = simulate(tmp_path / "a"), simulate(tmp_path / "b", other)
    assert one.aggregator.registry.view().adapter != two.aggregator.registry.view().adapter


def test_run__fraction__trains_only_who_is_drawn(tmp_path: Path) -> None:
    engine = simulate(tmp_path, small_spec(fraction=0.4))
    assert [line["cohort"] for line in engine.lines] == [2, 2, 2] and verdict(engine) == "exact"


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.sends is not None])
def test_run__attacked__replays_exactly_and_changes_the_adapter(tmp_path: Path, name: str) -> None:
    spec = small_spec(codec="f32", steps=2)
    honest = simulate(tmp_path / "honest", spec)
    engine = simulate(tmp_path / "attacked", spec, attackers=Attackers(name, 1, ATTACKS[name].strength))
    assert verdict(engine) == "exact"
    assert any(not np.array_equal(value, last(honest)[part]) for part, value in last(engine).items())


@pytest.mark.parametrize("codec", CODECS)
def test_run__nan__is_refused_by_admission_and_named(tmp_path: Path, codec: str) -> None:
    engine = simulate(tmp_path, small_spec(codec=codec, steps=2, min_nodes=1), attackers=Attackers("nan", 1))
    told = [(line["round"], line["number"], line["attacker"]) for line in engine.rejected]
    assert told == [(1, 5, True), (2, 5, True)]
    assert {line["code"] for line in engine.rejected} == {"not-finite" if codec in ("f32", "bf16") else "bad-container"}
    assert [(line["accepted"], line["rejected"]) for line in engine.lines] == [(4, 1), (4, 1)]
    assert list((tmp_path / "spool").iterdir()) == [], "a refused update leaves no byte"
    assert verdict(engine) == "exact"
    record = records.decode(engine.aggregator.blobs.get(engine.aggregator.registry.view().rolls[0].record_digest))
    assert [node.hex() for node in record.closing.late] == [engine.rejected[0]["node"][2:]]


def test_run__too_few_updates_pass__ends_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="3 rounds after each other were void: 3 of 5 updates were refused .*NaN"):
        simulate(tmp_path, small_spec(codec="f32"), attackers=Attackers("nan", 3))


def test_run__scaled_beyond_the_bound__is_refused(tmp_path: Path) -> None:
    engine = simulate(tmp_path, small_spec(codec="f32"), attackers=Attackers("scale", 1, 1e6))
    assert {line["code"] for line in engine.rejected} == {"value-too-large"}


def test_run__ipm__moves_the_mean_as_the_formula_says(tmp_path: Path) -> None:
    """4 honest nodes and 1 that sends -4 times their mean: nothing is left of the step."""
    spec = small_spec(codec="f32", steps=1)
    engine = simulate(tmp_path, spec, attackers=Attackers("ipm", 1, 4.0))
    zero = safetensors.numpy.load_file(engine.aggregator.blobs.path(engine.aggregator.registry.view().openings[1].base))  # type: ignore[index]
    assert max(np.abs(value - zero[part]).max() for part, value in last(engine).items()) < 1e-6


@pytest.mark.parametrize("codec", ["f32", "mxint8"])
def test_decoded__sealed_update__is_what_the_aggregator_reads(tmp_path: Path, codec: str) -> None:
    seen: list[Any] = []
    spec = small_spec(codec=codec, steps=1)
    original = simulate_attack.write

    def spy(sent: Any, *rest: Any) -> Any:
        seen.append((sent, simulate_attack.decoded(rest[2], rest[1].step, original(sent, *rest))))
        return original(sent, *rest)

    simulate_attack.write = spy
    try:
        simulate(tmp_path, spec, attackers=Attackers("mimic", 1, 0.0))
    finally:
        simulate_attack.write = original
    (written, read), *_ = seen
    assert set(written) == {tensor.name for tensor in sent(spec.lora_mode, spec.tensors, Step(1))} == set(read)
    bound = 0.0 if codec == "f32" else 2e-3
    assert all(np.abs(written[name] - read[name]).max() <= bound for name in written)
