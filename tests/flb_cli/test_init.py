# SPDX-License-Identifier: Apache-2.0
"""`flb init` writes what it reads."""

from dataclasses import fields
from pathlib import Path

import pytest

from flb.config import Config
from flb.config_file import load
from flb_cli.main import main

pytestmark = pytest.mark.unit


def test_init__file__reads_back_as_the_defaults_with_a_comment_on_every_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert main(["init", str(path)]) == 0
    read = load(path)
    assert read.lora == Config().lora and read.run == Config().run and read.training == Config().training
    assert read.client.workdir == tmp_path / "flb-node"
    lines = [line for line in path.read_text().splitlines() if ":" in line and not line.lstrip().startswith("#")]
    sections = [line for line in lines if line.endswith(":")]
    assert all("  # " in line for line in lines if line not in sections)
    assert (
        len(sections) == sum(1 for item in fields(Config) if hasattr(item.default_factory, "__dataclass_fields__")) + 1
    )


def test_init__existing_file__is_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mine")
    assert main(["init", str(path)]) == 10
    assert path.read_text() == "mine" and "exists: choose another name" in capsys.readouterr().err
    assert main(["init", str(path), "--force"]) == 0
    assert path.read_text() != "mine"
