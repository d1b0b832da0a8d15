# SPDX-License-Identifier: Apache-2.0
"""What a run will cost: bytes that are exactly those of real files, and a model of the rest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flb.admission import layout_of
from flb.errors import Refused
from flb.forecast import adapter_bytes, at_rank, down_bytes, drawn, forecast, kinds, update_bytes
from flb.spec_sections import RunSpec
from flb.store import BlobStore
from flb.types import Codec, Step
from flb_aggregator.publish import make_adapter_zero
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def steps_of(spec: RunSpec, steps: int) -> RunSpec:
    """The spec with so many rounds."""
    return replace(spec, rounds=replace(spec.rounds, steps=steps))


@pytest.mark.parametrize("mode", ["factors", "alternate", "freeze_a"])
@pytest.mark.parametrize("codec", [codec.name.lower() for codec in Codec])
@pytest.mark.parametrize("down", ["f32", "mxint8"])
def test_forecast__totals__are_the_sums_of_every_round(mode: str, codec: str, down: str) -> None:
    spec = steps_of(small_spec(mode, codec, down), 123)
    made = forecast(spec, 5, 100.0)
    ups = [layout_of(spec, Step(step)).size for step in range(1, 124)]
    downs = [down_bytes(spec, step, 5) for step in range(1, 124)]
    assert made.total_up == 5 * sum(ups) and made.total_down == 5 * (adapter_bytes(spec, 0, 5) + sum(downs))
    assert (made.bytes_up, made.bytes_up_smallest, made.bytes_down) == (max(ups), min(ups), max(downs))
    assert made.bytes_by_codec[codec] == max(ups[:2])


def test_adapter_bytes__adapter_zero__is_the_size_of_its_blob(tmp_path: Path) -> None:
    spec, store = small_spec(), BlobStore(tmp_path)
    path = store.path(make_adapter_zero(spec.tensors, 0, store))
    assert path.stat().st_size == adapter_bytes(spec, 0, 3)


def test_kinds__any_number_of_steps__counts_each_once() -> None:
    for steps in (1, 2, 9, 10, 11, 99, 100, 12_345):
        spec = steps_of(small_spec("alternate"), steps)
        assert sum(times for _, times in kinds(spec)) == steps
    assert len(list(kinds(steps_of(small_spec(), 10**9)))) <= 20


@pytest.mark.parametrize(("nodes", "fraction", "cohort", "quorum"), [
    (2, 1.0, 2, 2), (3, 1.0, 3, 2), (100, 0.07, 7, 5), (100, 0.01, 2, 2), (5000, 1.0, 4096, 2731),
])  # fmt: skip
def test_forecast__cohort_and_quorum__are_those_of_a_round(
    nodes: int, fraction: float, cohort: int, quorum: int
) -> None:
    made = forecast(small_spec(fraction=fraction), nodes, 100.0)
    assert (made.nodes, made.cohort, made.quorum) == (nodes, cohort, quorum)


def test_forecast__a_round__is_bytes_over_the_line_and_combining() -> None:
    made = forecast(small_spec(), 4, 8.0)
    assert made.seconds_up == pytest.approx(4 * made.bytes_up / 1e6)
    assert made.seconds_down == pytest.approx(4 * made.bytes_down / 1e6)
    assert made.round_seconds > made.seconds_up + made.seconds_down


def test_forecast__dearer_methods__take_longer_and_more_memory() -> None:
    def made(mode: str, rule: str, **lora: Any) -> tuple[float, int]:
        spec = small_spec(mode)
        weights = "examples" if rule == "mean" else "equal"
        aggregation = replace(spec.aggregation, rule=rule, weights=weights)
        found = forecast(replace(spec, aggregation=aggregation, lora=replace(spec.lora, **lora)), 100, 100.0)
        return found.seconds_combine, found.aggregator_mib

    assert made("alternate", "mean") < made("alternate", "median") < made("alternate", "krum")
    assert made("factors", "mean") < made("factors", "krum") < made("product", "krum")
    assert made("factors", "mean") < made("product", "mean") < made("product", "krum")
    assert made("factors", "mean") < made("factors", "mean", residual_rank=1)


def test_at_rank__twice_the_rank__doubles_the_values_alone() -> None:
    spec = small_spec(codec="f32")
    wider = at_rank(spec, 4)
    assert [tensor.shape for tensor in wider.tensors] == [(4, 40_000), (8, 4)]
    assert 2 * update_bytes(spec, 1, 2) - update_bytes(spec, 1, 4) == layout_of(spec, Step(1)).header_size


def test_forecast__more_than_one_cohort_can_add__names_the_largest_legal_settings() -> None:
    overflow = forecast(small_spec(), 4, 100.0).overflow
    assert (overflow.bits, overflow.weight_cap, overflow.max_cohort) == (63, 131_071, 8191)


@pytest.mark.parametrize(("changes", "words"), [
    ({"nodes": 0}, "a run of 0 nodes trains nothing"), ({"nodes": -1}, "a run of -1 nodes"),
    ({"nodes": 1}, "1 nodes make no round of run.min_nodes 2"), ({"mbit": 0.0}, "carries nothing"),
    ({"mbit": float("nan")}, "carries nothing"), ({"mbit": float("inf")}, "carries nothing"),
])  # fmt: skip
def test_forecast__numbers_that_make_no_round__are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        forecast(small_spec(), **{"nodes": 4, "mbit": 100.0, **changes})


def test_drawn__fraction__is_taken_exactly() -> None:
    assert drawn(small_spec(fraction=0.07), 100) == 7
    assert drawn(small_spec(), 3) == 3
