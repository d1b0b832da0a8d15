# SPDX-License-Identifier: Apache-2.0
"""Packed examples on real architectures: apart where the model supports it, and the loss that they have alone."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, GPT2Config, MambaConfig, PreTrainedModel
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from flb.errors import ConfigError
from flb_node import packed_attention
from flb_node.packing import columns
from flb_node.tokens import IGNORED, Tokens
from tests import tiny_model

pytestmark = pytest.mark.model

ROWS = [Tokens(tuple(range(3, 3 + n)), start) for n, start in ((9, 3), (5, 1), (7, 2), (11, 4), (2, 1))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(tiny_model.build(tmp_path_factory.mktemp("base"))).eval()


@torch.no_grad()
def summed(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor, places: torch.Tensor) -> float:
    logits = model(input_ids=ids, position_ids=places, use_cache=False).logits[:, :-1]
    return float(cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"))


def test_check__llama__keeps_examples_apart(model: PreTrainedModel) -> None:
    packed_attention.check(model)


def test_check__model_that_ignores_position_ids__config_error() -> None:
    mamba = MambaConfig(vocab_size=16, hidden_size=16, num_hidden_layers=1, state_size=4)
    with pytest.raises(ConfigError, match="does not keep packed examples apart: set training.packing: false"):
        packed_attention.check(AutoModelForCausalLM.from_config(mamba))


def test_check__training_mode__as_it_was(model: PreTrainedModel) -> None:
    gpt = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=16, n_embd=16, n_layer=1, n_head=2)).train()
    packed_attention.check(gpt)
    assert gpt.training


@pytest.mark.parametrize("batch", [1, 2])
def test_packed_rows__through_trls_collator__loss_of_the_examples_alone(model: PreTrainedModel, batch: int) -> None:
    alone = sum(
        summed(model, torch.tensor([row.ids]), torch.tensor([row.labels]), torch.arange(len(row.ids))[None])
        for row in ROWS
    )
    packed = columns(ROWS, 16, packing=True)
    rows = [dict(zip(packed, values, strict=True)) for values in zip(*packed.values(), strict=True)]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    together = 0.0
    for first in range(0, len(rows), batch):
        made = collate(rows[first : first + batch])
        assert "attention_mask" not in made or made["attention_mask"] is None
        together += summed(model, made["input_ids"], made["labels"], made["position_ids"])
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(rows) < len(ROWS)
