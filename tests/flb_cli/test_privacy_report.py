# SPDX-License-Identifier: Apache-2.0
"""What is told about privacy is what the spec's noise is worth."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flb.privacy import example, local
from flb.spec import PrivacySpec
from flb_cli import privacy_report
from tests.sim import small_spec

pytestmark = pytest.mark.unit

PLAIN = small_spec()
NAMES = {"mechanism", "epsilon", "delta", "unit", "sigma", "clip_norm", "noise_to_signal"}


def test_told__no_mechanism__says_so_and_nothing_else() -> None:
    made = privacy_report.told(PLAIN, 3, 2)
    assert made.pop("mechanism") == "none" and set(made.values()) == {None} and set(made) | {"mechanism"} == NAMES
    assert privacy_report.in_words(privacy_report.told(PLAIN, 3, 2)) == "none; no noise was added"


def test_told__a_budget__is_spent_after_all_rounds_and_not_before() -> None:
    privacy = local.plan(training=PLAIN.training, parameters=100, steps=3, clip_norm=2.0, epsilon=8.0, delta=1e-5)
    spec = replace(PLAIN, privacy=privacy)
    made = privacy_report.told(spec, 4, 3)
    assert set(made) == NAMES and made["epsilon"] == pytest.approx(8.0) and made["delta"] == 1e-5
    assert privacy_report.told(spec, 4, 1)["epsilon"] < 5
    parameters = local.parameters_of(spec.tensors)
    assert made["noise_to_signal"] == pytest.approx(made["sigma"] / 2.0 * (parameters / 4) ** 0.5)
    assert "epsilon 8 at delta 1e-05" in privacy_report.in_words(made)


def test_told__noise_that_bounds_nothing__is_null_in_json() -> None:
    made = privacy_report.told(replace(PLAIN, privacy=PrivacySpec("local", 1.0, 1e-7, 0.0, 1e-5)), 3, 3)
    assert made["epsilon"] is None and "null" in json.dumps(made, allow_nan=False)
    assert "nothing for one node's updates" in privacy_report.in_words(made)


def test_result__folder_of_an_aggregator__is_read(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_bytes(PLAIN.encode())
    assert privacy_report.result(tmp_path, 3, 2)["mechanism"] == "none"


def test_settings__local__is_one_key_and_none__is_no_key() -> None:
    local = privacy_report.settings("local", 3)
    assert local == {"client": {"local_dp": True}} and privacy_report.settings("none", 3) == {}


def test_told__privacy_of_examples__is_the_budget_that_every_node_keeps_to() -> None:
    spec = replace(PLAIN, privacy=example.plan(None, 8.0, 1e-5))
    made = privacy_report.told(spec, 4, 1)
    assert set(made) == NAMES and (made["epsilon"], made["clip_norm"]) == (8.0, 1.0) and "one example" in made["unit"]
    assert "at least 0.5 on the sum of gradients" in privacy_report.in_words(made)
    bare = privacy_report.told(replace(PLAIN, privacy=example.plan(None, None, 1e-5)), 4, 1)
    assert bare["epsilon"] is None and "nothing for one example" in privacy_report.in_words(bare)


def test_settings__example__has_a_budget() -> None:
    assert privacy_report.settings("example", 3) == {"privacy": {"example": True}, "client": {"target_epsilon": 8.0}}
