# SPDX-License-Identifier: Apache-2.0
"""Every method that the demo offers is a word of the spec, and what the demo sets for it is legal."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import yaml

from flb import legality
from flb.config_file import load
from flb.spec_sections import AGGREGATION_RULES, SERVER_OPTIMIZERS
from flb.types import LoraMode, TensorSpec
from flb.wire import container
from flb_cli import demo_method, deploy

pytestmark = pytest.mark.unit


def reasons(folder: Path, *words: str, nodes: int = 3, rounds: int = 3) -> set[str]:
    """The codes of what is illegal in the settings for these options."""
    parser = argparse.ArgumentParser()
    demo_method.add_options(parser)
    arguments = parser.parse_args(words)
    arguments.nodes, arguments.rounds = nodes, rounds
    tensors = [TensorSpec("model.layers.0.self_attn.q_proj.weight", (32, 32))]
    (folder / "base").mkdir(exist_ok=True)
    (folder / "base" / "model.safetensors").write_bytes(container.encode_header(tensors, "BF16", {}))
    config: dict[str, Any] = {
        "model": {"model_path": "base"},
        "lora": demo_method.lora(arguments),
        "run": {"steps": rounds, **demo_method.run(arguments)},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return {reason.code for reason in legality.reasons(deploy.draft_spec(load(folder / "config.yaml")))}


def test_options__words__are_those_of_the_spec() -> None:
    assert tuple(mode.value for mode in LoraMode) == demo_method.MODES
    assert (demo_method.RULES, demo_method.OPTIMIZERS) == (AGGREGATION_RULES, SERVER_OPTIMIZERS)


@pytest.mark.parametrize("nodes", [1, 3, 8])
@pytest.mark.parametrize("mode", demo_method.MODES)
def test_settings__mode__is_legal(tmp_path: Path, mode: str, nodes: int) -> None:
    assert reasons(tmp_path, "--lora-mode", mode, nodes=nodes) == set()


@pytest.mark.parametrize("nodes", [3, 8])
@pytest.mark.parametrize("rule", demo_method.RULES)
def test_settings__rule_beside_one_factor__is_legal(tmp_path: Path, rule: str, nodes: int) -> None:
    assert reasons(tmp_path, "--rule", rule, "--lora-mode", "freeze_a", nodes=nodes) == set()


@pytest.mark.parametrize("mode", ["factors", "alternate", "freeze_a", "product"])
@pytest.mark.parametrize("optimizer", demo_method.OPTIMIZERS)
def test_settings__optimizer__is_legal(tmp_path: Path, optimizer: str, mode: str) -> None:
    assert reasons(tmp_path, "--server-optimizer", optimizer, "--lora-mode", mode) == set()


def test_settings__what_does_not_go_together__is_left_to_legality(tmp_path: Path) -> None:
    assert reasons(tmp_path, "--rule", "median") == {"chart"}
    assert reasons(tmp_path, "--server-optimizer", "adam", "--lora-mode", "stack") >= {"moments"}
    assert reasons(tmp_path, "--rule", "krum", nodes=2) == {"quorum"}
