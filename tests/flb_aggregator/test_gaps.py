# SPDX-License-Identifier: Apache-2.0
"""The reported gap from files: dense figures for every mode that averages both factors, and none for the others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import layout_of
from flb.lora.gap import Gap
from flb.lora.shape import A, B
from flb.types import Step, TensorSpec
from flb_aggregator import gaps
from flb_aggregator.pipeline import certify_adapter, combine, measure_gap
from flb_aggregator.reweigh import Counted
from tests.product_rounds import MODULES, Played, product_of, product_spec
from tests.sim import write_blob

pytestmark = pytest.mark.unit


def reported(played: Played, out: bytearray | None = None) -> Gap | None:
    """What the pass itself, or one of its own, says."""
    write = (lambda data: None) if out is None else out.extend
    found = combine(played.spec, Step(1), played.base, played.inputs, write)
    return found or reported_alone(played)


def reported_alone(played: Played) -> Gap | None:
    """What the pass of its own says."""
    return measure_gap(played.spec, Step(1), played.base, played.inputs)


def wanted(played: Played, adapter: bytes) -> float:
    """‖W* − B'A'‖ / ‖W* − BA‖ over all modules, dense."""
    missed = moved = 0.0
    frozen = safetensors.numpy.load(adapter)
    for module in MODULES:
        b, a = played.before(module)
        before = b[:, :4] @ a[:4]
        ideal = played.ideal(module)
        assert frozen[module + A].shape[0] == frozen[module + B].shape[1]
        missed += float(np.linalg.norm(ideal - product_of(adapter, module)) ** 2)
        moved += float(np.linalg.norm(ideal - before) ** 2)
    return float(np.sqrt(missed / moved))


@pytest.mark.parametrize(
    ("mode", "lora"),
    [("factors", {}), ("product", {}), ("product", {"energy": 0.6}), ("factors", {"residual_rank": 2})],
)
def test_gap__dense__agrees(mode: str, lora: dict[str, object], tmp_path: Path) -> None:
    first = Played(product_spec(), tmp_path / "first").combined()
    spec = product_spec(mode, **lora)
    played = Played(spec, tmp_path / "second", base=first)
    out = bytearray()
    found = reported(played, out)
    assert found is not None
    assert found.relative == pytest.approx(wanted(played, bytes(out)), rel=1e-3)
    if mode == "product" or lora:
        failed, again = certify_adapter(spec, Step(1), played.base, played.inputs, write_blob(tmp_path, bytes(out)))
        assert failed == [] and again.figures == pytest.approx(found.figures, rel=1e-3)


@pytest.mark.parametrize("mode", ["alternate", "freeze_a"])
def test_gap__one_factor_for_all__has_none(mode: str, tmp_path: Path) -> None:
    """The mean of the products is then the mean of the other factor."""
    spec = product_spec(mode)
    played = Played(spec, tmp_path, layout=layout_of(spec, Step(1)))
    assert reported(played) is None


def test_gap__rule_without_weights_or_no_lora__has_none(tmp_path: Path) -> None:
    spec = product_spec("factors")
    other = dataclasses.replace(spec, tensors=(TensorSpec("a", (5, 7)),))
    assert gaps.measurable(spec, Counted(5000, (1,) * 5000, 5000))
    assert not gaps.measurable(spec, Counted(3, (), 1, (1, 2)))
    assert not gaps.measurable(other, Counted(3, (1, 1, 1), 3))
    median = dataclasses.replace(
        spec, aggregation=dataclasses.replace(spec.aggregation, rule="median", weights="equal")
    )
    assert reported(Played(median, tmp_path)) is None


def test_gap__large_round__is_estimated_node_by_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Played(product_spec(), tmp_path / "first").combined()
    played = Played(product_spec("factors"), tmp_path / "second", weights=(3, 0, 5, 2), base=first)
    exact = reported(played)
    monkeypatch.setattr(gaps, "EXACT_BYTES", 0)
    estimate = reported(played)
    assert exact is not None and estimate is not None and estimate != exact
    assert estimate.relative == pytest.approx(exact.relative, rel=0.5), "two modules alone"
    assert estimate.lost_energy == 0.0


def test_gap__cohort_beyond_gram_matrices__is_estimated_too(tmp_path: Path) -> None:
    played = Played(product_spec("factors"), tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "EXACT_BYTES", 0)
        found = measure_gap(played.spec, Step(1), played.base, played.inputs * 400)
    assert found.relative == pytest.approx(reported(played).relative, rel=0.5)  # type: ignore[union-attr]


def test_gap__optimizer_with_moments__is_that_of_the_mean_that_it_gets(tmp_path: Path) -> None:
    played = Played(product_spec("factors"), tmp_path)
    plain = reported(played)
    adam = dataclasses.replace(played.spec.server_optimizer, name="adam", learning_rate=1e-3)
    played.spec = dataclasses.replace(played.spec, server_optimizer=adam)
    assert plain is not None and reported_alone(played) == plain
