# SPDX-License-Identifier: Apache-2.0
"""DPO as trl does it, against the base as reference; checkpointing; and a model that is left as it was found."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from flb.delta import Float32
from flb.errors import DatasetError
from flb.lora import parts
from flb_node import trainer
from flb_node.data import Message
from flb_node.trainer import LocalTrainer, Trained
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, LORA, TRAINING, adapter_of, digest, load, tensors_of, train

pytestmark = pytest.mark.model

STEADY = replace(LORA, dropout=0.0)
DPO = replace(TRAINING, objective="dpo")


@dataclass(frozen=True)
class Pair:
    """A preference, as training reads it."""

    messages: tuple[Message, ...]
    rejected: Message | None


PAIRS = tuple(Pair(example.messages, Message("assistant", "I do not know.")) for example in EXAMPLES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalTrainer:
    return load(folder)


@pytest.fixture(scope="module")
def zero(folder: Path) -> dict[str, Float32]:
    return adapter_of(tensors_of(folder))


def prefer(local: LocalTrainer, adapter: dict[str, Float32], seed: int = 1) -> Trained:
    return local.train(PAIRS, adapter, frozenset(parts.trained(adapter)), DPO, seed, lambda *_: None)  # type: ignore[arg-type]


def test_prepare__dpo__a_row_has_its_prompt_twice(local: LocalTrainer) -> None:
    rows = local.prepare(PAIRS, DPO)  # type: ignore[arg-type]
    wanted = [2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows]
    assert local.tokens_a_row == pytest.approx(sum(wanted) / len(wanted))


def test_train__dpo__same_bits_whatever_came_before_and_one_adapter_stays(
    local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    sft = digest(train(local, zero).adapter)
    first = prefer(local, zero)
    assert first.losses[0] == pytest.approx(np.log(2)) and first.losses[-1] < 0.6
    prefer(local, first.adapter, seed=2)
    assert digest(prefer(local, zero).adapter) == digest(first.adapter)
    assert list(local.model.peft_config) == ["default"]
    assert digest(train(local, zero).adapter) == sft


def test_train__dpo_from_a_later_adapter__the_reference_is_the_base(
    local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    moved = prefer(local, zero).adapter
    assert prefer(local, moved).losses[0] < 0.6, "compared with itself the adapter would start at log 2"
    both = {**zero, **parts.frozen(moved)}
    assert prefer(local, both).losses[0] < 0.6, "and what is frozen is no part of the reference"


def test_train__plain_dpo_trainer__same_losses_and_adapter(
    folder: Path, zero: dict[str, Float32], tmp_path: Path
) -> None:
    """The reference: trl as its manual shows it, which tokenizes by itself, from adapter 0, which is the base.

    Without dropout: trl's copy of the adapter would draw from the same random numbers.
    """
    ours, plain = prefer(load(folder, lora=STEADY), zero), load(folder, lora=STEADY)
    for name, weight in plain.weights.items():
        weight.data.copy_(torch.from_numpy(zero[name]))
    rows = [
        {
            "prompt": [{"role": "user", "content": pair.messages[0].content}],
            "chosen": [{"role": "assistant", "content": pair.messages[1].content}],
            "rejected": [{"role": "assistant", "content": "I do not know."}],
        }
        for pair in PAIRS
    ]
    arguments = DPOConfig(
        output_dir=str(tmp_path), max_steps=DPO.local_steps, per_device_train_batch_size=DPO.batch_size,
        learning_rate=DPO.learning_rate, lr_scheduler_type="constant", max_length=DPO.max_length, beta=DPO.dpo_beta,
        disable_dropout=False, activation_checkpointing=False, bf16=False, use_cpu=True, seed=1, data_seed=1,
        logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    reference = DPOTrainer(
        plain.model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=plain.tokenizer
    )
    reference.remove_callback(PrinterCallback)
    reference.train()
    losses = [entry["loss"] for entry in reference.state.log_history if "loss" in entry]
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    for name, weight in plain.weights.items():
        np.testing.assert_allclose(ours.adapter[name], weight.detach().numpy(), atol=2e-4)


def test_train__dpo_without_rejected_answers__dataset_error(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    with pytest.raises(DatasetError, match="rejected"):
        local.train(EXAMPLES, zero, frozenset(zero), DPO, 1, lambda *_: None)


@pytest.mark.parametrize("bits", [None, 4])
def test_train__checkpointing__same_bits_and_no_hook_stays(
    folder: Path, zero: dict[str, Float32], bits: int | None
) -> None:
    loaded = [
        trainer.load(
            folder, LORA, tensors_of(folder), device_map="cpu", dtype="float32", seed=0, bits=bits, checkpointing=on
        )
        for on in (False, True)
    ]
    hooks = dict(loaded[1].model.get_input_embeddings()._forward_hooks)
    assert digest(train(loaded[0], zero).adapter) == digest(train(loaded[1], zero).adapter)
    assert dict(loaded[1].model.get_input_embeddings()._forward_hooks) == hooks
    assert not loaded[1].model.get_base_model().is_gradient_checkpointing
