# SPDX-License-Identifier: Apache-2.0
"""`flb model merge`: what comes out is base plus adapter, and what must not be merged is refused in a sentence."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from flb.adapter_blob import form_at
from flb.errors import ModelMissing, NotAllowedHere, Refused, WrongBaseModel
from flb.lora.peft_config import peft_config
from flb.spec import LoraSpec
from flb_cli.model_merge import merge
from tests import tiny_model
from tests.flb_node.test_trainer import tensors_of
from tests.sim import small_spec

pytestmark = pytest.mark.model

IDS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """An adapter that changes what the model says."""
    return make_adapter(base, tmp_path / "adapter")


def make_adapter(base: Path, folder: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits.float()


def tuned(base: Path, adapter: Path) -> torch.Tensor:
    from peft import PeftModel

    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)))


def test_merge__safetensors__is_base_plus_adapter_with_the_tokenizer(base: Path, adapter: Path, tmp_path: Path) -> None:
    how = merge(base, adapter, tmp_path / "out")
    assert how == {"dtype": "float32", "modules": 14, "dequantized": ""}
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.allclose(logits(merged), tuned(base, adapter), atol=1e-5)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def make_stack(base: Path, folder: Path) -> Path:
    """An adapter of mode stack at rank 7, of a run at rank 4 and alpha 5, so that its own alpha is no whole number."""
    tensors = tensors_of(base, lora := LoraSpec("stack", 4, 5, 0.0, ("q_proj", "down_proj"), max_rank=9))
    spec = dataclasses.replace(small_spec("stack"), lora=lora, tensors=tensors)
    form = form_at(spec, 7)
    values = np.random.default_rng(0).standard_normal((form.size - len(form.header)) // 4).astype("<f4") * 0.1
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(form.header + values.tobytes())
    (folder / "adapter_config.json").write_bytes(peft_config(spec.base, lora, 7))
    return folder


def test_merge__a_stack_of_a_larger_rank_and_a_broken_alpha__is_base_plus_adapter(base: Path, tmp_path: Path) -> None:
    folder = make_stack(base, tmp_path / "adapter")
    assert merge(base, folder, tmp_path / "out")["modules"] == 4
    merged, plain = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "out", base))
    assert torch.allclose(logits(merged), tuned(base, folder), atol=1e-5)
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in weights if name.endswith("_A.weight"))
    path = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
    moved = dict(merged.named_parameters())[path] - dict(plain.named_parameters())[path]
    assert torch.allclose(moved, 5 / 4 * weights[name.replace("_A.", "_B.")] @ weights[name], atol=1e-5)


def test_merge__adapter_model_bin__is_read_and_gives_the_same(base: Path, adapter: Path, tmp_path: Path) -> None:
    merge(base, adapter, tmp_path / "one")
    weights = load_file(adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(weights, adapter / "adapter_model.bin")
    merge(base, adapter, tmp_path / "two")
    names = [tmp_path / name / "model.safetensors" for name in ("one", "two")]
    assert names[0].read_bytes() == names[1].read_bytes()


class Boom:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_merge__adapter_model_bin_with_code__is_refused_and_the_code_does_not_run(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"x": Boom()}, adapter / "adapter_model.bin")
    with pytest.raises(WrongBaseModel, match="is damaged, or does not fit"):
        merge(base, adapter, tmp_path / "out")
    assert not Path("ran").exists() and not (tmp_path / "out").exists()


def test_merge__adapter_without_some_tensors__is_not_half_merged(base: Path, adapter: Path, tmp_path: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    del weights["base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"]
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(
        WrongBaseModel, match=r"does not fit the base model, first at .*layers\.1\.mlp\.up_proj\.lora_B"
    ):
        merge(base, adapter, tmp_path / "out")


def test_merge__adapter_of_nan__is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    weights = {name: value * torch.nan for name, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(weights, adapter / "adapter_model.safetensors")
    with pytest.raises(WrongBaseModel, match="holds NaN"):
        merge(base, adapter, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"], "nothing is left behind"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_merge__no_adapter__names_what_is_missing(base: Path, adapter: Path, tmp_path: Path, name: str) -> None:
    (adapter / name).unlink()
    with pytest.raises(ModelMissing, match=f"holds no {name}"):
        merge(base, adapter, tmp_path / "out")


def test_merge__folder_exists__is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(NotAllowedHere, match="exists"):
        merge(base, adapter, adapter)


@pytest.mark.parametrize(("bits", "word"), [(8, "bitsandbytes, 8 bits"), (4, "bitsandbytes, 4 bits")])
def test_merge__quantized_base__is_refused_or_merged_into_a_bfloat16_copy(
    base: Path, adapter: Path, tmp_path: Path, bits: int, word: str
) -> None:
    config = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_quant_type="nf4")
    quantized = tmp_path / "quantized"
    shutil.copytree(base, quantized)
    (quantized / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(base, quantization_config=config).save_pretrained(quantized)
    with pytest.raises(Refused, match=f"is quantized \\({word}\\).*--dequantize"):
        merge(quantized, adapter, tmp_path / "out")
    assert merge(quantized, adapter, tmp_path / "out", dequantize=True) == {
        "dtype": "bfloat16", "modules": 14, "dequantized": word,
    }  # fmt: skip
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.dtype == torch.bfloat16
    error = (logits(merged) - tuned(base, adapter)).abs().mean()
    assert error < (logits(merged) - logits(AutoModelForCausalLM.from_pretrained(base))).abs().mean() / 2
