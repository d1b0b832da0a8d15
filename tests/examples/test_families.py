# SPDX-License-Identifier: Apache-2.0
"""Every family's example runs on a tiny model of its architecture, and its page says what the shapes say."""

import ast
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from flb import base_model
from flb.config_file import load
from tests import families
from tests.families import FAMILIES, Family
from tools.family_sizes import MODELS, Sizes, family_row, size_row, sizes

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

each = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.example)


def sft(example: str) -> Any:
    """The example's script as a module."""
    spec = importlib.util.spec_from_file_location("sft_example", EXAMPLES / example / "sft.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.model
@each
def test_sft__tiny_model__trains_saves_loads_and_merges(
    family: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = families.build(family, tmp_path / "base")
    data = tmp_path / "data.jsonl"
    rows = [[{"role": "user", "content": str(i)}, {"role": "assistant", "content": "yes"}] for i in range(4)]
    data.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    arguments = ["--model", str(base), "--data", str(data), "--out", str(tmp_path / "out"), "--steps", "2"]
    assert sft(family.example).main(arguments) == 0
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert {name.rsplit(".", 1)[-1] for name in adapter["target_modules"]} == set(family.modules)
    merged = tmp_path / "out" / "merged"
    assert base_model.model_type(merged) == family.model_type
    before = {tensor.name: tensor.shape for tensor in base_model.tensors(base)}
    assert {tensor.name: tensor.shape for tensor in base_model.tensors(merged)} == before


def common(example: str) -> str:
    """The example's script without comments, layout and what its family has of its own."""
    tree = ast.parse((EXAMPLES / example / "sft.py").read_text())
    named = re.match(r"Fine-tune (.+) on this machine with", ast.get_docstring(tree) or "")
    assert named is not None
    text = re.sub(r"(MODEL = |ignore_patterns=)(\[.*?\]|'.*?')", r"\1", ast.unparse(tree))
    return text.replace(example, "EXAMPLE").replace(named[1], "NAME")


@pytest.mark.unit
@each
def test_sft__all_families__the_same_script_but_for_names(family: Family) -> None:
    assert common(family.example) == common(FAMILIES[0].example)


@pytest.mark.unit
@each
def test_config__loads__and_adapts_all_linear_layers(family: Family) -> None:
    config = load(EXAMPLES / family.example / "config.yaml")
    assert config.lora.target_modules == "all-linear" and config.model.trust_remote_code is None
    assert config.model.model_path is not None
    assert config.model.model_path.name == MODELS[family.example][0].split("/")[1]


@pytest.fixture(scope="module")
def computed() -> dict[str, Sizes]:
    return {example: sizes(example) for example in MODELS}


@pytest.mark.model
@each
def test_page__figures__follow_from_the_shapes(family: Family, computed: dict[str, Sizes]) -> None:
    found = computed[family.example]
    assert (found.model_type, found.modules) == (family.model_type, tuple(sorted(family.modules)))
    page = (EXAMPLES / family.example / "README.md").read_text()
    for text in (
        found.repository, f"`model_type` `{found.model_type}`", f"{found.parameters / 1e9:.2f} billion weights",
        f"| disk | {found.weights / 1e9:.1f} GB |", f"bfloat16 | about {found.gpu / 1e9:.0f} GB |",
        f"4 bits | about {found.gpu_4bit / 1e9:.0f} GB |", f"| about {found.round_seconds} s of computing at",
        f"sends per round | {found.up_mxint8 / 1e6:.1f} MB (mxint8) |", f"or {found.down_f32 / 1e6:.1f} MB (f32) |",
        ", ".join(f"`{name}`" for name in found.modules),
    ):  # fmt: skip
        assert text in page, text


@pytest.mark.model
def test_models_page__both_tables__are_the_tool_s(computed: dict[str, Sizes]) -> None:
    page = (ROOT / "docs" / "models.md").read_text().splitlines()
    for found in computed.values():
        assert family_row(found) in page and size_row(found) in page
