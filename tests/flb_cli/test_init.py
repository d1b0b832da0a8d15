# SPDX-License-Identifier: Apache-2.0
"""`flb init` writes what it reads."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from flb.config import Config
from flb.config_file import load
from flb_cli.main import main

pytestmark = pytest.mark.unit


def sections_of(kind: Any) -> int:
    """Sections of a config class, those inside sections too."""
    inner = [item.default_factory for item in fields(kind) if hasattr(item.default_factory, "__dataclass_fields__")]
    return len(inner) + sum(sections_of(one) for one in inner)


def test_init__file__reads_back_as_the_defaults_with_a_comment_on_every_key(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert main(["init", str(path)]) == 0
    read = load(path)
    assert read.lora == Config().lora and read.run == Config().run and read.training == Config().training
    assert read.client.workdir == tmp_path / "flb-node"
    lines = [line for line in path.read_text().splitlines() if ":" in line and not line.lstrip().startswith("#")]
    sections = [line for line in lines if line.endswith(":")]
    assert all("  # " in line for line in lines if line not in sections)
    assert len(sections) == sections_of(Config)


def test_init__existing_file__is_kept_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("mine")
    assert main(["init", str(path)]) == 10
    assert path.read_text() == "mine" and "exists: choose another name" in capsys.readouterr().err
    assert main(["init", str(path), "--force"]) == 0
    assert path.read_text() != "mine"
