# SPDX-License-Identifier: Apache-2.0
"""Gram matrices of a round from its files: exact, in any blocks, and nothing from an update that was altered."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import layout_of
from flb.delta import norm_shift
from flb.errors import CorruptStore
from flb.types import Step
from flb_aggregator import product_distances, update_gram
from flb_aggregator.files import Files
from tests.rule_rounds import COUNT, MODULES, combined, draw, files_of, ring_of, spec_for

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


@pytest.mark.parametrize("cells", [1 << 22, 20 * 64 * 3])
@pytest.mark.parametrize("together", [64, 4])
def test_gram_of__product__is_that_of_the_products_in_any_blocks(
    together: int, cells: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_distances, "TOGETHER", together)
    monkeypatch.setattr(product_distances, "CELLS", cells)
    spec = spec_for("krum", "factors")
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
        expected += np.array([[float((x * y).sum()) for y in moved] for x in moved])
    assert found / found[0, 0] == pytest.approx(expected / expected[0, 0], abs=1e-4)
