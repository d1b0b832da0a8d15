# SPDX-License-Identifier: Apache-2.0
"""Local privacy of a run: its numbers, the bounds that follow, and what a node refuses of a spec made by hand."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.planner import make_spec, read_spec
from flb.privacy import local
from flb.privacy.accountant import epsilon_of_rounds
from flb.spec import PrivacySpec, RunSpec, check
from tests.sim import small_spec

pytestmark = pytest.mark.unit

DELTA = 1e-5
PLAIN = small_spec()
PARAMETERS = local.parameters_of(PLAIN.tensors)


def planned(clip_norm: float | None = None, epsilon: float | None = None, **changes: object) -> RunSpec:
    """A spec through the planner."""
    privacy = local.plan(
        training=PLAIN.training, parameters=PARAMETERS, steps=PLAIN.rounds.steps, clip_norm=clip_norm, epsilon=epsilon,
        delta=DELTA,
    )  # fmt: skip
    settings = {
        name: getattr(PLAIN, name)
        for name in ("base", "lora", "tensors", "adapter", "training", "rounds", "aggregation", "server_optimizer",
                     "scoring", "codec", "down", "salt")
    }  # fmt: skip
    fixed = {"audit": "members", "value_bound": 4, "weight_cap": 65536, "norm": None, "open_membership": False}
    return make_spec(**{**settings, **fixed, "privacy": privacy, **changes})


def test_plan__auto_and_weak__is_a_quarter_of_adam_s_reach_and_a_thousandth_of_that() -> None:
    privacy = planned().privacy
    assert privacy.clip_norm == pytest.approx(0.01 * 2 * math.sqrt(PARAMETERS) / 4)
    assert privacy == PrivacySpec("local", privacy.clip_norm, 0.001, 0.0, DELTA)
    assert local.epsilon_after(privacy, 1) > 1e5, "weak noise is no guarantee"


@given(st.floats(0.1, 100), st.integers(1, 200))
def test_plan__a_budget__is_met_by_all_rounds_of_replaced_updates(epsilon: float, steps: int) -> None:
    privacy = local.plan(
        training=PLAIN.training, parameters=100, steps=steps, clip_norm=1.0, epsilon=epsilon, delta=DELTA
    )
    truth = epsilon_of_rounds(
        noise_multiplier=privacy.sigma / 2, sampling_rate=1.0, rounds=steps, delta=DELTA
    )  # a replaced update moves by 2C, and C is 1
    assert truth <= epsilon and local.epsilon_after(privacy, steps) == truth
    assert local.epsilon_after(privacy, steps + 1) > epsilon
    assert local.mu(privacy) == pytest.approx(2 / privacy.sigma)


@pytest.mark.parametrize(("epsilon", "steps", "share"), [(8, 1, 1.20), (8, 50, 8.49), (1, 1, 7.46), (1, 50, 52.8)])
def test_plan__published_budgets__have_the_published_noise(epsilon: float, steps: int, share: float) -> None:
    made = local.plan(training=PLAIN.training, parameters=9, steps=steps, clip_norm=3.0, epsilon=epsilon, delta=DELTA)
    assert made.noise_multiplier == pytest.approx(share, rel=2e-3)


@pytest.mark.parametrize("epsilon", [None, 8.0])
def test_make_spec__local_privacy__bounds_follow_and_it_reads_back(epsilon: float | None) -> None:
    spec = planned(clip_norm=1.0, epsilon=epsilon)
    sigma = spec.privacy.sigma
    assert spec.ring.norm_bound >= 2 + sigma * (math.sqrt(PARAMETERS) + 6) >= spec.ring.norm_bound / 2.2
    assert spec.ring.value_bound >= 32 * sigma and spec.ring.value_bound >= 4
    assert spec.ring.value_bound << spec.ring.fraction_bits == 4 << 32, "sums need no more bits than without noise"
    assert local.room_for_values(spec.privacy, spec.ring) >= 2**33
    assert read_spec(spec.encode()) == spec


@given(st.floats(0.01, 1e4), st.floats(1e-5, 100), st.integers(1, 10**9))
def test_bounds__any_noise__are_powers_of_two_that_hold_it(norm: float, multiplier: float, parameters: int) -> None:
    privacy = PrivacySpec("local", norm, multiplier, 0.0, DELTA)
    least, values = local.least_norm_bound(privacy, parameters), local.least_value_bound(privacy)
    assert least & (least - 1) == 0 and least >= 2 * norm + privacy.sigma * (math.sqrt(parameters) + 6)
    assert values & (values - 1) == 0 and values >= 2 * local.TAIL * privacy.sigma


def test_make_spec__a_norm_bound_too_small_for_the_noise__is_refused() -> None:
    with pytest.raises(Refused, match="run.norm_bound to auto"):
        planned(clip_norm=10.0, norm=16)


def changed(**changes: object) -> RunSpec:
    spec = planned(clip_norm=1.0, epsilon=8.0)
    return replace(spec, privacy=replace(spec.privacy, **changes))  # type: ignore[arg-type]


def test_check__budget_that_the_noise_does_not_keep__is_refused() -> None:
    with pytest.raises(Refused, match="the run promises 7"):
        read_spec(changed(epsilon=7.0).encode())
    longer = changed()
    longer = replace(longer, rounds=replace(longer.rounds, steps=4))
    with pytest.raises(Refused, match="4 rounds with this noise come to epsilon"):
        read_spec(longer.encode())


def test_check__delta_of_one_over_the_nodes__is_refused() -> None:
    with pytest.raises(Refused, match="one node in 2"):
        read_spec(changed(delta=0.5).encode())


def test_check__value_bound_below_the_noise__is_refused() -> None:
    spec = changed()
    with pytest.raises(Refused, match="the noise needs a value bound"):
        local.check(replace(spec, ring=replace(spec.ring, value_bound=4)))


def test_check__noise_below_the_ring__is_refused() -> None:
    with pytest.raises(Refused, match="ring units"):
        planned(clip_norm=1e-4)


def test_check__other_mechanisms__are_left_alone() -> None:
    local.check(PLAIN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"mechanism": "magic"}, "is unknown"), ({"mechanism": "none"}, "no mechanism"), ({"clip_norm": 0.0}, "clip_norm is 0"),
     ({"noise_multiplier": -1.0}, "noise_multiplier is -1"), ({"epsilon": -1.0}, "epsilon is -1"), ({"delta": 0.0}, "delta 0"),
     ({"delta": 1.0}, "delta 1"), ({"clip_norm": math.inf}, "clip_norm is inf"), ({"epsilon": math.nan}, "epsilon is nan")],
)  # fmt: skip
def test_check__numbers_that_protect_nothing__are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(Refused, match=words):
        check(changed(**changes))
