# SPDX-License-Identifier: Apache-2.0
"""The example of simulation runs as its page says, on a tiny model."""

import json
from pathlib import Path

import pytest

from flb.config_file import load
from flb_cli.main import main
from tests import tiny_model

CONFIG = Path(__file__).resolve().parents[2] / "examples" / "simulate" / "config.yaml"


@pytest.mark.unit
def test_example__config__is_ten_lines_at_most_and_can_be_read() -> None:
    assert len(CONFIG.read_text().splitlines()) <= 10
    config = load(CONFIG)
    assert config.num_clients == 8 and config.dataset_name == CONFIG.parent / "data.jsonl"


@pytest.mark.model
def test_example__tiny_model__learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = tiny_model.build(tmp_path / "base")
    changes = [f"model.model_path={base}", "model.device_map=cpu", "run.steps=2", "training.learning_rate=5e-3"]
    arguments = [part for change in changes for part in ("--set", change)]
    assert main(["simulate", "--config", str(CONFIG), "--out", str(tmp_path / "run"), "--json", *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["nodes"] == 8 and result["final_eval_loss"] < result["base_eval_loss"]
