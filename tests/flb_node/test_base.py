# SPDX-License-Identifier: Apache-2.0
"""Base models that are missing, damaged, or not what their configuration says."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import dynamic_module_utils

from flb.errors import ModelMissing, Refused, WrongBaseModel
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


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

(Path({marker!r})).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def with_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model as one whose architecture is code of its folder; the code leaves a mark when it runs."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "own.py").write_text(CODE.format(marker=str(tmp_path / "ran")))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    classes = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "architectures": ["OwnModel"], "auto_map": classes})
    )
    described = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    described |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return folder


def test_load_model__code_that_nobody_allowed__is_refused_and_does_not_run(with_code: Path, tmp_path: Path) -> None:
    for load in (lambda: load_model(with_code, torch.float32, CPU), lambda: load_tokenizer(with_code)):
        with pytest.raises(Refused, match=r"brings code of its own \(own\).*name and revision in model\.trust_remote"):
            load()
    assert not (tmp_path / "ran").exists()


def test_load_model__code_that_is_allowed__runs(with_code: Path, tmp_path: Path) -> None:
    model = load_model(with_code, torch.float32, CPU, runs_code=True)
    assert type(model).__name__ == "OwnModel" and (tmp_path / "ran").exists()


def test_load_model__architecture_that_transformers_knows__allowed_code_does_not_run(
    with_code: Path, tmp_path: Path
) -> None:
    for name, changed in (("config.json", {"model_type": "llama"}), ("tokenizer_config.json", {})):
        described = json.loads((with_code / name).read_text(encoding="utf-8")) | changed
        if name == "tokenizer_config.json":
            described["tokenizer_class"] = "PreTrainedTokenizerFast"
        (with_code / name).write_text(json.dumps(described))
    model = load_model(with_code, torch.float32, CPU, runs_code=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert load_tokenizer(with_code, runs_code=True).chat_template
    assert not (tmp_path / "ran").exists()
