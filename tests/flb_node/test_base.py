# SPDX-License-Identifier: Apache-2.0
"""Base models that are missing, damaged, or not what their configuration says."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from flb.errors import ModelMissing, WrongBaseModel
from flb_node.base import load_model, load_tokenizer
from flb_node.devices import CPU
from tests import tiny_model

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def test_load_model__whole__in_the_type_asked_for_and_evaluating(whole: Path) -> None:
    model = load_model(whole, torch.bfloat16, CPU)
    assert model.dtype == torch.bfloat16
    assert not model.training


def test_load_model__no_folder_or_no_weights__model_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelMissing, match=r"no \*\.safetensors"):
            load_model(path, torch.float32, CPU)


def test_load_model__weights_cut_short__wrong_base_model(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(WrongBaseModel, match="can't be loaded"):
        load_model(folder, torch.float32, CPU)


def test_load_model__no_configuration__wrong_base_model(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(WrongBaseModel, match="can't be loaded"):
        load_model(folder, torch.float32, CPU)


def test_load_model__unknown_architecture__wrong_base_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "abacus"}', encoding="utf-8")
    with pytest.raises(WrongBaseModel, match="can't be loaded"):
        load_model(folder, torch.float32, CPU)


def test_load_model__weight_missing__not_made_up(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WrongBaseModel, match=r"1 missing keys, first model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder, torch.float32, CPU)


def test_load_model__another_width__wrong_base_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}), encoding="utf-8")
    with pytest.raises(WrongBaseModel) as caught:
        load_model(folder, torch.float32, CPU)
    assert "\n" not in str(caught.value)


def test_load_tokenizer__no_chat_template__wrong_base_model(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(WrongBaseModel, match="no chat template"):
        load_tokenizer(folder)


def configured(folder: Path, **changes: str | None) -> None:
    path = folder / "tokenizer_config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}), encoding="utf-8")


def test_load_tokenizer__no_padding_token__takes_the_end_token(folder: Path) -> None:
    configured(folder, pad_token=None)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token == tokenizer.eos_token is not None


def test_load_tokenizer__neither_padding_nor_end_token__wrong_base_model(folder: Path) -> None:
    configured(folder, pad_token=None, eos_token=None)
    with pytest.raises(WrongBaseModel, match="neither a padding nor an end token: add pad_token"):
        load_tokenizer(folder)


def test_load_tokenizer__damaged__wrong_base_model(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(WrongBaseModel, match="can't be loaded"):
        load_tokenizer(folder)
