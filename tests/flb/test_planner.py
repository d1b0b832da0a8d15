# SPDX-License-Identifier: Apache-2.0
"""From settings to a spec."""

import dataclasses
from typing import Any

import pytest

from flb import planner
from flb.errors import Refused
from flb.spec import AggregationSpec, RunSpec, TrainingSpec
from flb.types import TensorSpec
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def made(**changes: object) -> RunSpec:
    spec = small_spec()
    arguments = {
        "base": spec.base, "lora": spec.lora, "tensors": spec.tensors, "adapter": spec.adapter,
        "training": spec.training, "aggregation": spec.aggregation, "scoring": spec.scoring, "rounds": spec.rounds, "server_optimizer": spec.server_optimizer, "codec": "f32",
        "down": "f32",
        "audit": "members", "value_bound": 4, "weight_cap": 65536, "norm": None,
        "open_membership": True, "salt": spec.salt,
    }  # fmt: skip
    return planner.make_spec(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("audit", "is_open", "expected"), [
    ("members", True, "off"), ("members", False, "members"), ("public", True, "public"), ("off", False, "off"),
])  # fmt: skip
def test_make_spec__open_membership__makes_members_off(audit: str, is_open: bool, expected: str) -> None:
    assert made(audit=audit, open_membership=is_open).audit == expected


@pytest.mark.parametrize(("rate", "steps", "size", "bound"), [
    (1e-3, 10, 2_442_240, 16), (1e-3, 10, 10_000, 1), (0.1, 10, 256, 16), (0.1, 10, 257, 32), (0.0, 1, 1, 1),
])  # fmt: skip
def test_norm_bound__auto__is_the_next_power_of_two(rate: float, steps: int, size: int, bound: int) -> None:
    training = TrainingSpec(steps, 4, rate, 128, 0)
    assert planner.norm_bound(training, (TensorSpec("t", (size,)),)) == bound


def test_make_spec__weights_that_may_overflow__are_refused_with_the_largest_legal_cap() -> None:
    with pytest.raises(Refused, match="at most 131071"):
        made(weight_cap=1 << 20)


def test_make_spec__choices_that_do_not_go_together__are_refused() -> None:
    lora = dataclasses.replace(small_spec().lora, align=True)
    with pytest.raises(Refused, match="lora.align is true, and mode factors has no factors to turn"):
        made(lora=lora)


def fitted(**changes: Any) -> int:
    """The cohort that is left of 4096 for a spec of 3 rounds whose `lora` and `aggregation` have these values."""
    spec = small_spec(min_nodes=5)
    kinds = {item.name for item in dataclasses.fields(AggregationSpec)}
    lora = dataclasses.replace(spec.lora, **{name: value for name, value in changes.items() if name not in kinds})
    aggregation = dataclasses.replace(spec.aggregation, **{k: value for k, value in changes.items() if k in kinds})
    return planner.fit_cohort(dataclasses.replace(spec, lora=lora, aggregation=aggregation)).rounds.max_cohort


def test_fit_cohort__auto__is_what_the_other_choices_allow() -> None:
    assert fitted() == 4096
    assert fitted(mode="product") == (4096 - 2) // 2
    assert fitted(mode="product", ranks=(1,)) == 4094
    assert fitted(mode="stack", max_rank=60) == 10
    assert fitted(mode="stack", max_rank=10) == 4096, "fewer than min_nodes: the bound itself is refused"
    neighbours = {"mixing": "nearest_neighbours", "weights": "equal"}
    assert fitted(mode="alternate", rule="geometric_median", **neighbours) == 511
    assert fitted(mode="product", rule="geometric_median", **neighbours) == 511


def test_read_spec__made_by_hand__is_refused_like_a_made_one() -> None:
    spec = made()
    assert planner.read_spec(spec.encode()) == spec
    by_hand = dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, energy=0.5))
    with pytest.raises(Refused, match="lora.energy is 0.5, and mode factors keeps every rank"):
        planner.read_spec(by_hand.encode())


def test_plan_tensors__rank_zero__is_refused() -> None:
    base = (TensorSpec("model.layers.0.q.weight", (8, 8)),)
    with pytest.raises(Refused, match="lora.r is 0"):
        planner.plan_tensors(base, "all-linear", 0)


def test_make_spec__a_stack_that_may_pass_its_bound__is_refused_with_the_bound_it_needs() -> None:
    spec = small_spec("stack", max_cohort=5)
    with pytest.raises(Refused, match="grow to rank 30 .*lora.max_rank is 29"):
        made(rounds=spec.rounds, lora=dataclasses.replace(spec.lora, max_rank=29))
    assert made(rounds=spec.rounds, lora=dataclasses.replace(spec.lora, max_rank=30)).lora.max_rank == 30


def test_make_spec__norm__overrides_auto() -> None:
    assert made(norm=64).ring.norm_bound == 64
    assert dataclasses.replace(made(), ring=made().ring).ring.fraction_bits == 32


def pay(**changes: object) -> tuple[int, int]:
    arguments = {"token": True, "per_round": 10, "delay_seconds": 86400, "min_round_seconds": None,
                 "round_seconds": 3600, "open_membership": False}  # fmt: skip
    return planner.plan_pay(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(("changes", "expected"), [
    ({}, (1372, 86400)),
    ({"min_round_seconds": 1400}, (1400, 86400)),
    ({"delay_seconds": 0}, (0, 0)),
    ({"delay_seconds": 63 * 3600}, (3600, 63 * 3600)),
    ({"token": False, "per_round": 0, "open_membership": True}, (0, 0)),
    ({"token": False, "per_round": 0, "min_round_seconds": 7}, (7, 0)),
])  # fmt: skip
def test_plan_pay__delay__is_what_the_ring_holds(changes: dict[str, object], expected: tuple[int, int]) -> None:
    assert pay(**changes) == expected


@pytest.mark.parametrize(("changes", "words"), [
    ({"open_membership": True}, "payouts need admission"),
    ({"token": False}, "there is no token"),
    ({"min_round_seconds": 1371}, "the longest for these rounds is 86373"),
    ({"min_round_seconds": 0}, "the longest for these rounds is 0"),
    ({"delay_seconds": 63 * 3600 + 1}, "the longest for these rounds is 226800"),
    ({"min_round_seconds": 3601}, "run.min_round_seconds is 3601"),
    ({"token": False, "per_round": 0, "min_round_seconds": 3601}, "run.min_round_seconds is 3601"),
])  # fmt: skip
def test_plan_pay__what_the_contract_would_refuse__is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        pay(**changes)
