# SPDX-License-Identifier: Apache-2.0
"""The reported gap from files: dense figures for every mode that averages both factors, and none for the others."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.types import Step, TensorSpec
from flb_aggregator import gaps
from flb_aggregator.module_stack import A, B
from flb_aggregator.pipeline import certify_adapter, combine, measure_gap
from tests.product_rounds import MODULES, Played, product_of, product_spec
from tests.sim import write_blob

pytestmark = pytest.mark.unit


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
    found = combine(spec, Step(1), played.base, played.inputs, out.extend) or measure_gap(
        spec, Step(1), played.base, played.inputs
    )
    assert found is not None
    assert found.relative == pytest.approx(wanted(played, bytes(out)), rel=1e-3)
    if mode == "product" or lora:
        failed, again = certify_adapter(spec, Step(1), played.base, played.inputs, write_blob(tmp_path, bytes(out)))
        assert failed == [] and again.figures == pytest.approx(found.figures, rel=1e-3)


def test_measure_gap__one_factor_for_all_or_no_mean__has_none(tmp_path: Path) -> None:
    played = Played(product_spec("factors"), tmp_path)
    for mode in ("alternate", "freeze_a", "stack"):
        assert measure_gap(product_spec(mode), Step(1), played.base, played.inputs) is None
    median = dataclasses.replace(played.spec, aggregation=dataclasses.replace(played.spec.aggregation, rule="median"))
    assert measure_gap(median, Step(1), played.base, played.inputs) is None


def test_measure_gap__cohort_too_large_or_no_lora__has_none(tmp_path: Path) -> None:
    played = Played(product_spec("factors"), tmp_path)
    other = dataclasses.replace(played.spec, tensors=(TensorSpec("a", (5, 7)),))
    assert measure_gap(other, Step(1), played.base, played.inputs) is None
    assert gaps.measurable(played.spec, 1023) and not gaps.measurable(played.spec, 1024)
    assert measure_gap(played.spec, Step(1), played.base, played.inputs * 400) is None
