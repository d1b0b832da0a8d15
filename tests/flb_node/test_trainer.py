# SPDX-License-Identifier: Apache-2.0
"""Local training on a tiny model: the same bits for the same seed, and nothing but the adapter changes."""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.numpy import load_file
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from flb import base_model
from flb.delta import Float32
from flb.errors import BadContainer, ConfigError, DatasetError, WrongBaseModel
from flb.lora import adapter_zero, layout
from flb.lora.parts import trained
from flb.spec import LoraSpec, TrainingSpec
from flb.types import TensorSpec
from flb_node import trainer
from flb_node.data import Example, Message
from flb_node.trainer import LocalTrainer, Trained
from tests import tiny_model

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 4, 8, 0.05, ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"))
TRAINING = TrainingSpec(local_steps=6, batch_size=4, learning_rate=5e-3, max_length=96, seed=0)
EXAMPLES = tuple(
    Example((Message("user", f"What follows {i}?"), Message("assistant", f"After {i} comes {i + 1}.")))
    for i in range(20)
)


def tensors_of(folder: Path, lora: LoraSpec = LORA) -> tuple[TensorSpec, ...]:
    return layout.adapter_tensors(layout.resolve(base_model.tensors(folder), lora.target_modules), lora.r)


def adapter_of(tensors: tuple[TensorSpec, ...]) -> dict[str, Float32]:
    return {
        tensor.name: np.concatenate(list(adapter_zero.blocks(tensor, 7))).reshape(tensor.shape) for tensor in tensors
    }


def load(folder: Path, *, lora: LoraSpec = LORA, dtype: str = "float32") -> LocalTrainer:
    return trainer.load(folder, lora, tensors_of(folder, lora), device_map="cpu", dtype=dtype, seed=0)


def train(local: LocalTrainer, adapter: Mapping[str, Float32], seed: int = 1, **changes: int) -> Trained:
    training = replace(TRAINING, **changes)
    return local.train(EXAMPLES, adapter, frozenset(trained(adapter)), training, seed, lambda *_: None)


def digest(adapter: Mapping[str, Float32]) -> str:
    return hashlib.sha256(b"".join(adapter[name].tobytes() for name in sorted(adapter))).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalTrainer:
    return load(folder)


@pytest.fixture(scope="module")
def zero(folder: Path) -> dict[str, Float32]:
    return adapter_of(tensors_of(folder))


def test_train__same_seed__same_bits_whatever_came_before(
    folder: Path, local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    first = train(local, zero)
    train(local, first.adapter, seed=2)
    assert digest(train(local, zero).adapter) == digest(first.adapter)
    assert digest(train(load(folder), zero).adapter) == digest(first.adapter)


def test_train__another_process__same_bits(folder: Path, local: LocalTrainer, zero: dict[str, Float32]) -> None:
    threads = torch.get_num_threads()
    code = (
        f"from flb_node.threads import configure_threads; configure_threads({threads}, 1)\n"
        "import sys; from pathlib import Path\n"
        "from tests.flb_node import test_trainer as t\n"
        "folder = Path(sys.argv[1]); zero = t.adapter_of(t.tensors_of(folder))\n"
        "print(t.digest(t.train(t.load(folder), zero).adapter))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == digest(train(local, zero).adapter), done.stderr


def test_train__other_seed__other_bits(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    assert digest(train(local, zero, seed=1).adapter) != digest(train(local, zero, seed=2).adapter)


def test_train__seed__decides_order_of_data(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    # With B = 0 dropout can't matter in the first optimizer step, so its loss depends on the batch alone.
    first_losses = {train(local, zero, seed=seed, local_steps=1).losses[0] for seed in (1, 2, 3)}
    assert len(first_losses) == 3


def test_train__seed__decides_dropout(folder: Path, zero: dict[str, Float32]) -> None:
    with_dropout, without = load(folder), load(folder, lora=replace(LORA, dropout=0.0))
    tuned = train(with_dropout, zero).adapter
    assert digest(train(without, zero).adapter) != digest(tuned)


def test_train__loss__falls(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    losses = train(local, zero, local_steps=25).losses
    assert np.mean(losses[-5:]) < 0.92 * losses[0]


def test_train__some_trainable__the_others_keep_their_bits(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    start = train(local, zero).adapter
    for factor in (".lora_A.weight", ".lora_B.weight"):
        names = frozenset(name for name in start if name.endswith(factor))
        tuned = local.train(EXAMPLES, start, names, TRAINING, 3, lambda *_: None).adapter
        changed = {name for name in start if not np.array_equal(tuned[name], start[name])}
        assert changed == names


def test_train__result__float32_copies_that_stay(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    before = digest(zero)
    first = train(local, zero).adapter
    kept = digest(first)
    train(local, zero, seed=9)
    assert {value.dtype for value in first.values()} == {np.dtype(np.float32)}
    assert (digest(first), digest(zero)) == (kept, before)


def test_train__plain_sft_trainer__same_losses_and_adapter(
    folder: Path, local: LocalTrainer, zero: dict[str, Float32], tmp_path: Path
) -> None:
    """The reference: trl as its manual shows it, which tokenizes by itself and computes all logits."""
    ours = train(local, zero)
    plain = load(folder)
    for name, weight in plain.weights.items():
        weight.data.copy_(torch.from_numpy(zero[name]))
    rows = [
        {
            "prompt": [{"role": "user", "content": example.messages[0].content}],
            "completion": [{"role": "assistant", "content": example.messages[1].content}],
        }
        for example in EXAMPLES
    ]
    arguments = SFTConfig(
        output_dir=str(tmp_path),
        max_steps=TRAINING.local_steps,
        per_device_train_batch_size=TRAINING.batch_size,
        learning_rate=TRAINING.learning_rate,
        lr_scheduler_type="constant",
        max_length=TRAINING.max_length,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=True,
        seed=1,
        data_seed=1,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    reference = SFTTrainer(
        plain.model, arguments, train_dataset=Dataset.from_list(rows), processing_class=plain.tokenizer
    )
    reference.remove_callback(PrinterCallback)
    reference.train()
    losses = [entry["loss"] for entry in reference.state.log_history if "loss" in entry]
    assert ours.losses == pytest.approx(losses, rel=1e-4)
    for name, weight in plain.weights.items():
        np.testing.assert_allclose(ours.adapter[name], weight.detach().numpy(), atol=1e-4)


def test_train__on_step__counts_and_can_end_it(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    expected = digest(train(local, zero).adapter)
    seen: list[tuple[int, int]] = []

    def stop_at_three(step: int, total: int, loss: float) -> None:
        assert math.isfinite(loss)
        seen.append((step, total))
        if step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        local.train(EXAMPLES, zero, frozenset(zero), TRAINING, 1, stop_at_three)
    assert seen == [(1, 6), (2, 6), (3, 6)]
    assert "forward" not in local.model.get_base_model().__dict__
    assert digest(train(local, zero).adapter) == expected


def test_train__times__one_for_each_step(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    done = train(local, zero)
    assert len(done.losses) == len(done.step_seconds) == TRAINING.local_steps
    assert 0 < sum(done.step_seconds) <= done.seconds


def test_train__terminal_and_working_folder__untouched(
    local: LocalTrainer,
    zero: dict[str, Float32],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    train(local, zero)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


def test_train__prompts_too_long__dataset_error(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    with pytest.raises(DatasetError, match="each of the 20 examples has a prompt of 8 tokens or more"):
        train(local, zero, max_length=8)


def test_train__adapter_of_another_shape__bad_container(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    name = next(iter(zero))
    with pytest.raises(BadContainer, match="other tensors"):
        train(local, {name: zero[name]})
    with pytest.raises(BadContainer, match=name):
        train(local, {**zero, name: zero[name][:1]})  # torch would broadcast it without a word


def test_load__names__those_of_the_file_that_peft_writes(local: LocalTrainer, folder: Path, tmp_path: Path) -> None:
    local.model.save_pretrained(tmp_path)
    written = {name: value.shape for name, value in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert written == {tensor.name: tensor.shape for tensor in tensors_of(folder)}


def test_load__bfloat16__adapter_float32_and_losses_alike(
    folder: Path, local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    half = load(folder, dtype="bfloat16")
    assert half.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {weight.dtype for weight in half.weights.values()} == {torch.float32}
    assert train(half, zero).losses == pytest.approx(train(local, zero).losses, rel=0.02)


def test_load__auto__measures_both_and_keeps_one(folder: Path, zero: dict[str, Float32]) -> None:
    local = load(folder, dtype="auto")
    assert set(local.measured) == {"float32", "bfloat16"}
    assert local.model.get_input_embeddings().weight.dtype == getattr(torch, local.dtype)
    assert digest(train(local, zero).adapter) == digest(train(load(folder, dtype=local.dtype), zero).adapter)


def test_load__another_rank_in_the_spec__first_difference_named(folder: Path) -> None:
    other = tensors_of(folder, replace(LORA, r=2))
    with pytest.raises(WrongBaseModel) as caught:
        trainer.load(folder, LORA, other, device_map="cpu", dtype="float32", seed=0)
    first = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight is (4, 96) here and (2, 96) there"
    assert first in str(caught.value)


def test_load__another_architecture__wrong_base_model(folder: Path) -> None:
    fused = replace(LORA, target_modules=("qkv_proj",))
    with pytest.raises(WrongBaseModel, match="has no module named qkv_proj"):
        trainer.load(folder, fused, (), device_map="cpu", dtype="float32", seed=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_load__device_that_is_not_there__config_error(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        trainer.load(folder, LORA, tensors_of(folder), device_map="cuda", seed=0)
