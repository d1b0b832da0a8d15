# SPDX-License-Identifier: Apache-2.0
"""Gram matrices of a round from its files: exact, in any blocks, and nothing from an update that was altered."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import layout_of, update_metadata
from flb.attacks import gauge
from flb.delta import norm_shift
from flb.errors import CorruptStore
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator import product_distances, update_gram
from flb_aggregator.files import Files
from tests.rule_rounds import COUNT, MODULES, combined, draw, files_of, ring_of, spec_for
from tests.sim import write_blob

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("value", [float("nan"), 30.0])
@pytest.mark.parametrize("mode", ["factors", "alternate"])
def test_combine__an_update_beyond_the_norm_bound__is_named(mode: str, value: float, tmp_path: Path) -> None:
    spec = spec_for("krum", mode)
    updates = draw(spec, 1)
    name = layout_of(spec, Step(1)).tensors[-1].name
    updates[4][name][3, 1] = value
    with pytest.raises(CorruptStore, match="was altered since it was admitted"):
        combined(spec, 1, updates, tmp_path)


def test_gram_of__flat__is_exact(tmp_path: Path) -> None:
    spec = spec_for("krum")
    updates = draw(spec, 1)
    base, paths = files_of(spec, 1, updates, tmp_path)
    reduced = np.rint(ring_of(spec, 1, updates) * 2.0 ** -norm_shift(spec.ring.norm_bound, 32)).astype(np.int64)
    with Files([base, *paths]) as files:
        for threads in (1, 2):
            assert (update_gram.gram_of(spec, Step(1), COUNT, files, threads) == reduced @ reduced.T).all()


@pytest.mark.parametrize("mode", ["factors", "product"])
@pytest.mark.parametrize("cells", [1 << 22, 20 * 64 * 3])
@pytest.mark.parametrize("together", [64, 4])
def test_gram_of__both_factors__is_that_of_the_products_in_any_blocks(
    together: int, cells: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where factors are averaged each on its own, theirs are added."""
    monkeypatch.setattr(product_distances, "TOGETHER", together)
    monkeypatch.setattr(product_distances, "CELLS", cells)
    spec = spec_for("krum", mode)
    updates = draw(spec, 1)
    base, paths = files_of(spec, 1, updates, tmp_path)
    adapter = safetensors.numpy.load(base.read_bytes())
    with Files([base, *paths]) as files:
        found = product_distances.gram_of(spec, Step(1), COUNT, files, 2)
        assert (found == product_distances.gram_of(spec, Step(1), COUNT, files, 1)).all()
    expected = np.zeros((COUNT, COUNT))
    for module in MODULES:
        a, b = adapter[f"{module}.lora_A.weight"], adapter[f"{module}.lora_B.weight"]
        moved = [
            (
                (b + u[f"{module}.lora_B.weight"]).astype(float) @ (a + u[f"{module}.lora_A.weight"])
                - b.astype(float) @ a
            )
            for u in updates
        ]
        parts = [moved]
        if mode == "factors":
            parts += [[u[f"{module}.lora_{factor}.weight"].astype(float) for u in updates] for factor in "AB"]
        expected += sum(np.array([[float((x * y).sum()) for y in part] for x in part]) for part in parts)
    assert found / found[0, 0] == pytest.approx(expected / expected[0, 0], abs=1e-4)


def test_gram_of__a_node_that_scales_a_against_b__keeps_every_distance(tmp_path: Path) -> None:
    """As factors it would be far from all others, or near to whom it likes; its product is what it was."""
    plain = spec_for("krum", "product")
    spec = dataclasses.replace(plain, ring=dataclasses.replace(plain.ring, norm_bound=128))
    updates = draw(spec, 1)
    base, paths = files_of(spec, 1, updates, tmp_path)
    turned = gauge.attack(safetensors.numpy.load(base.read_bytes()), updates[5], 4.0)
    _, others = files_of(spec, 1, [*updates[:5], turned, *updates[6:]], tmp_path)
    assert others[5] != paths[5]
    grams = []
    for round_of in (paths, others):
        with Files([base, *round_of]) as files:
            grams.append(product_distances.gram_of(spec, Step(1), COUNT, files, 1))
    assert np.abs(grams[0] - grams[1]).max() <= 1e-4 * grams[0].max()
    own, sent = (ring_of(spec, 1, [update])[0].astype(float) for update in (updates[5], turned))
    assert np.linalg.norm(sent) > 50 * np.linalg.norm(own)


@pytest.mark.parametrize("rule", ["norm_bound", "krum", "multi_krum", "geometric_median", "centered_clipping"])
@pytest.mark.parametrize("mode", ["factors", "product"])
def test_combine__nodes_that_scale_a_against_b__ruin_no_robust_round(mode: str, rule: str, tmp_path: Path) -> None:
    """Their products are honest. Seen as products alone they would count in full, and ruin mean(B)·mean(A)."""
    plain = spec_for(rule, mode)
    spec = dataclasses.replace(plain, ring=dataclasses.replace(plain.ring, norm_bound=1024))
    honest = [*draw(spec, 1)[2:], *draw(spec, 1, scale=1.1e-3)[2:4]]
    base, _ = files_of(spec, 1, honest, tmp_path)
    before = safetensors.numpy.load(base.read_bytes())
    turned = [gauge.attack(before, update, 8.0) for update in honest[:2]]

    def product_of(adapter: dict[str, np.ndarray]) -> np.ndarray:
        b, a = (adapter[f"{MODULES[0]}.lora_{factor}.weight"].astype(np.float64) for factor in "BA")
        return b @ a

    ends = [product_of({name: before[name] + value for name, value in update.items()}) for update in honest]
    made = safetensors.numpy.load(combined(spec, 1, [*turned, *honest[2:]], tmp_path)[1])
    ideal = sum(ends) / len(ends)
    spread = max(np.linalg.norm(end - ideal) for end in ends)
    assert np.linalg.norm(product_of(made) - ideal) < 1.5 * spread


@pytest.mark.parametrize("mode", ["factors", "alternate"])
def test_gram_of__memory__does_not_grow_with_the_adapter(mode: str, tmp_path: Path) -> None:
    peaks = []
    for modules in (2, 12):
        spec = spec_for("krum", mode)
        tensors = [
            TensorSpec(f"m.{number:02}.{factor}.weight", shape)
            for number in range(modules)
            for factor, shape in (("lora_A", (2, 9_000)), ("lora_B", (9_000, 2)))
        ]
        spec = dataclasses.replace(spec, tensors=tuple(tensors))
        layout, random = layout_of(spec, Step(1)), np.random.default_rng(0)
        header = container.header_of(layout.entries, update_metadata(bytes(32), bytes(20), bytes(32)))
        paths = [write_blob(tmp_path, container.adapter_header(spec.tensors) + bytes(4 * sum(t.size for t in tensors)))]
        for _ in range(COUNT):
            values = random.standard_normal(sum(t.size for t in layout.tensors)).astype("<f4") * np.float32(1e-3)
            paths.append(write_blob(tmp_path, header + values.tobytes()))
        gram_of = (product_distances if mode == "factors" else update_gram).gram_of
        with Files(paths) as files:
            tracemalloc.start()
            gram_of(spec, Step(1), COUNT, files, 1)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + (64 << 10)
