# SPDX-License-Identifier: Apache-2.0
"""From settings to the privacy section of a spec, and the budgets that are refused."""

from dataclasses import replace

import pytest

from flb.config import ClientConfig, Config, PrivacyConfig
from flb.errors import Refused
from flb.spec import PrivacySpec
from flb_cli import deploy_privacy
from tests.sim import small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()


def planned(**client: object) -> PrivacySpec | None:
    config = replace(Config(), client=ClientConfig(local_dp=True, **client))  # type: ignore[arg-type]
    return deploy_privacy.plan(config, SPEC.training, SPEC.tensors)


def test_plan__without_local_dp__is_none() -> None:
    assert deploy_privacy.plan(Config(), SPEC.training, SPEC.tensors) is None


def test_plan__clip_norm_as_a_number__is_taken() -> None:
    made = planned(clip_norm=2.5)
    assert made is not None and (made.clip_norm, made.noise_multiplier, made.epsilon) == (2.5, 0.001, 0.0)


def test_plan__budget_that_drowns_the_signal__is_refused_with_what_would_change_it() -> None:
    with pytest.raises(Refused, match="times the signal.*change one of these.*client.accept_noise: true"):
        planned(target_epsilon=1.0)


def test_plan__the_same_budget_accepted__is_planned_for_all_rounds() -> None:
    made = planned(target_epsilon=1.0, accept_noise=True, delta=1e-6)
    assert made is not None and (made.epsilon, made.delta) == (1.0, 1e-6) and made.noise_multiplier > 10


def central(client: bool = False, nodes: int | None = None, **privacy: object) -> PrivacySpec:
    wanted = PrivacyConfig(**{"central": "fixed", **privacy})  # type: ignore[arg-type]
    config = replace(Config(), client=ClientConfig(local_dp=client), privacy=wanted, num_clients=nodes)
    made = deploy_privacy.plan(config, SPEC.training, SPEC.tensors)
    assert made is not None
    return made


def test_plan__central_and_local__are_refused_with_which_to_switch_off() -> None:
    with pytest.raises(Refused, match=r"set client.local_dp: false .* else privacy.central: none"):
        central(client=True)


def test_plan__central_without_a_budget__is_weak_and_divides_by_what_a_round_is_expected_to_have() -> None:
    assert central().denominator == Config().run.min_nodes and central(nodes=7).denominator == 7
    made = central(nodes=7, denominator=5, clip_norm=0.5)
    assert made == PrivacySpec("central_fixed", 0.5, 0.001, 0.0, 1e-5, 5)


def test_plan__central_budget__is_refused_where_it_drowns_the_signal_unless_accepted() -> None:
    with pytest.raises(Refused, match="times the signal.*privacy.accept_noise: true"):
        central(target_epsilon=1.0)
    made = central(target_epsilon=1.0, accept_noise=True)
    assert made.epsilon == 1.0 and made.noise_multiplier > 5


def test_plan__budget_and_multiplier__are_refused_together() -> None:
    with pytest.raises(Refused, match="both target_epsilon and noise_multiplier"):
        central(target_epsilon=1.0, noise_multiplier=2.0, accept_noise=True)


def test_plan__adaptive__splits_the_noise_and_refuses_a_split_that_no_budget_has() -> None:
    made = central(central="adaptive", noise_multiplier=1.0)
    assert made.mechanism == "central_adaptive" and made.bits_noise == pytest.approx(2.236, abs=1e-3)
    with pytest.raises(Refused, match="costs more than the whole budget"):
        central(central="adaptive", noise_multiplier=1.0, bits_noise=0.5)


def test_plan__privacy_of_examples__has_the_budget_of_the_settings() -> None:
    config = replace(Config(), privacy=PrivacyConfig(example=True), client=ClientConfig(target_epsilon=4.0))
    assert deploy_privacy.plan(config, SPEC.training, SPEC.tensors) == PrivacySpec("example", 1.0, 0.5, 4.0, 1e-5)


def test_plan__local_and_example_together__is_refused_with_what_to_switch_off() -> None:
    config = replace(Config(), privacy=PrivacyConfig(example=True), client=ClientConfig(local_dp=True))
    with pytest.raises(Refused, match="both true.*switch off client.local_dp"):
        deploy_privacy.plan(config, SPEC.training, SPEC.tensors)
