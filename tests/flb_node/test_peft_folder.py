# SPDX-License-Identifier: Apache-2.0
"""An adapter that does not fit is refused, and the model is the one that it was."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from flb.errors import WrongBaseModel
from flb_node.base import load_model
from flb_node.devices import CPU
from flb_node.peft_folder import with_adapter
from tests import tiny_model

pytestmark = pytest.mark.model


@pytest.mark.parametrize("damage", ["half", "shapes"])
def test_with_adapter__does_not_fit__refused_and_the_base_is_itself_again(tmp_path: Path, damage: str) -> None:
    base = tiny_model.build(tmp_path / "base")
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    get_peft_model(load_model(base, torch.float32, CPU), config).save_pretrained(tmp_path / "good")
    bad = shutil.copytree(tmp_path / "good", tmp_path / "bad")
    weights = load_file(bad / "adapter_model.safetensors")
    if damage == "half":
        weights = {name: value for name, value in weights.items() if "layers.0" in name}
    else:
        weights = {name: torch.cat([value, value]) for name, value in weights.items()}
    save_file(weights, bad / "adapter_model.safetensors")
    model, ids = load_model(base, torch.float32, CPU), torch.tensor([[5, 6, 7]])
    plain = model(input_ids=ids).logits
    with pytest.raises(WrongBaseModel, match="does not fit the base model"):
        with_adapter(model, bad)
    assert torch.equal(model(input_ids=ids).logits, plain)
    tuned = with_adapter(model, tmp_path / "good")
    assert not torch.equal(tuned(input_ids=ids).logits, plain)
    assert torch.equal(tuned.unload()(input_ids=ids).logits, plain)
