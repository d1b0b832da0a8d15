# SPDX-License-Identifier: Apache-2.0
"""What attach refuses before anything is joined, and how a callback swaps adapters. The whole of it runs end to end in
tests/e2e/test_own_trainer.py."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer

import flb_node
from flb.config import Config
from flb.errors import ConfigError, DatasetError, Refused, WrongBaseModel
from flb.lora.shape import at_rank
from flb.privacy import example
from flb.spec import LoraSpec
from flb.types import Step
from flb_node import adapter_weights, attached
from tests import tiny_model
from tests.flb_node.test_trainer import tensors_of
from tests.sim import small_spec

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 2, 4, 0.0, ("q_proj", "v_proj"))
ROWS = Dataset.from_list([{"prompt": f"{i}?", "completion": f"{i}"} for i in range(6)])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def a_trainer(base: Path, folder: Path, lora: LoraConfig | None, **more: Any) -> SFTTrainer:
    arguments = SFTConfig(str(folder), max_steps=2, per_device_train_batch_size=2, bf16=False, use_cpu=True,
                          report_to="none", disable_tqdm=True, **more)  # fmt: skip
    return SFTTrainer(model=str(base), args=arguments, train_dataset=ROWS, peft_config=lora)


def lora(**changes: Any) -> LoraConfig:
    return LoraConfig(
        **{"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | changes
    )


def test_attach__model_without_lora__refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"LlamaForCausalLM\) has no LoRA adapter: give SFTTrainer a peft_config"):
        flb_node.attach(a_trainer(base, tmp_path, None))


def test_attach__trains_more_than_lora__named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"also trains .*embed_tokens"):
        flb_node.attach(a_trainer(base, tmp_path, lora(modules_to_save=["embed_tokens"])))


@pytest.mark.parametrize("several", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_attach__several_training_processes__refused(base: Path, tmp_path: Path, several: str) -> None:
    trainer = a_trainer(base, tmp_path, lora())
    setattr(trainer, several, True)
    with pytest.raises(Refused, match="attach works with one training process: start the script without a launcher"):
        flb_node.attach(trainer)


def test_attach__launcher_with_two_processes__refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = a_trainer(base, tmp_path, lora())
    monkeypatch.setattr(SFTConfig, "world_size", 2)
    with pytest.raises(Refused, match="attach works with one training process"):
        flb_node.attach(trainer)


def test_attach__no_config__says_so(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        flb_node.attach(a_trainer(base, tmp_path, lora()), run=str(tmp_path / "config.yaml"))


@pytest.mark.parametrize(("own", "said"), [(96, "96"), (None, "None"), (64, ""), ("none at all", "")])
def test_announce__records_cut_elsewhere__says_both_lengths_and_what_to_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], own: Any, said: str
) -> None:
    spec = small_spec()
    training = dataclasses.replace(spec.training, max_length=64, batch_size=2, learning_rate=1e-3)
    common = {"output_dir": str(tmp_path), "per_device_train_batch_size": 2, "learning_rate": 1e-3, "use_cpu": True}
    arguments = TrainingArguments(**common) if own == "none at all" else SFTConfig(**common, bf16=False, max_length=own)
    attached.announce(arguments, dataclasses.replace(spec, training=training))
    told = capsys.readouterr().err
    if not said:
        assert told == ""
    else:
        assert f"the trainer's max_length is {said}, the run's 64; the trainer's is used" in told
        assert "make it with max_length=64" in told


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"r": 4}, WrongBaseModel, r"layers.0.self_attn.q_proj.lora_A.weight is \(4, 48\) here and \(2, 48\) there"),
        ({"target_modules": ["q_proj"]}, WrongBaseModel, r"v_proj.lora_A.weight is absent here and \(2, 48\) there"),
        ({"lora_alpha": 8}, Refused, "lora_alpha is 8 here and 4 in the run: set lora_alpha=4"),
        ({"use_rslora": True}, Refused, "made with use_rslora"),
    ],
)
def test_compare__other_adapter_than_the_run__named(
    base: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], named: str
) -> None:
    found = adapter_weights.lora_of(a_trainer(base, tmp_path, lora(**changes)).model)
    with pytest.raises(error, match=named):
        adapter_weights.compare(found, LORA, tensors_of(base, LORA))


@pytest.mark.parametrize(
    ("spec", "changes", "named"),
    [
        ({"ranks": (1, 2)}, {"r": 1, "lora_alpha": 4}, "lora_alpha is 4 here and 2 in the run"),
        ({"rslora": True}, {}, "set use_rslora=True"),
        ({"rslora": True}, {"use_rslora": True, "lora_alpha": 5}, "lora_alpha is 5 here and 4 in the run"),
    ],
)
def test_compare__a_node_s_rank_and_rslora__decide_alpha(
    base: Path, tmp_path: Path, spec: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    run = dataclasses.replace(LORA, mode="product", **spec)
    tensors = at_rank(tensors_of(base, LORA), changes.get("r", 2))
    right = {"use_rslora": run.rslora} | changes | {"lora_alpha": 2 if "r" in changes else 4}
    adapter_weights.compare(adapter_weights.lora_of(a_trainer(base, tmp_path, lora(**right)).model), run, tensors)
    found = adapter_weights.lora_of(a_trainer(base, tmp_path, lora(**changes)).model)
    with pytest.raises(Refused, match=named):
        adapter_weights.compare(found, run, tensors)


@pytest.mark.parametrize("frozen", [{"mode": "stack"}, {"residual_rank": 2}])
def test_refuse_frozen__an_adapter_that_holds_more_than_is_trained__is_refused(frozen: dict[str, Any]) -> None:
    attached.refuse_frozen(LORA)
    with pytest.raises(Refused, match="the run's adapter has a frozen part"):
        attached.refuse_frozen(dataclasses.replace(LORA, **frozen))


@pytest.mark.parametrize("frozen", [{"mode": "stack", "max_rank": 24}, {"residual_rank": 2}])
def test_check__run_with_a_frozen_part__is_refused_before_the_node_joins(
    base: Path, tmp_path: Path, frozen: dict[str, Any]
) -> None:
    trainer = a_trainer(base, tmp_path, lora())
    node = attached.Node(
        Config(), adapter_weights.lora_of(trainer.model), None, (), trainer.model, trainer.processing_class
    )
    spec = dataclasses.replace(small_spec(), lora=LORA, tensors=tensors_of(base, LORA))
    node.check(spec)
    with pytest.raises(Refused) as caught:
        node.check(dataclasses.replace(spec, lora=dataclasses.replace(LORA, **frozen)))
    assert str(caught.value).startswith("the run's adapter has a frozen part") and "flb-node" in str(caught.value)


@pytest.mark.parametrize(
    "asked", [{"objective": "dpo"}, {"local_epochs": 2}, {"lr_schedule": "cosine"}, {"warmup_steps": 1},
              {"fedprox_mu": 0.1}, {"optimizer_state": "keep"}],
)  # fmt: skip
def test_refuse_ignored__run_asks_for_more_than_steps__named(asked: dict[str, Any]) -> None:
    training = small_spec().training
    attached.refuse_ignored(training)
    with pytest.raises(Refused, match=f"the run asks for {next(iter(asked))}"):
        attached.refuse_ignored(dataclasses.replace(training, **asked))


def test_rounds__two_rounds__one_train_with_swapped_adapters_and_the_last_in_the_model(
    base: Path, tmp_path: Path
) -> None:
    trainer = a_trainer(base, tmp_path, lora(), logging_steps=1)
    node = attached.Node(
        Config(), adapter_weights.lora_of(trainer.model), None, (), trainer.model, trainer.processing_class
    )
    node.known = small_spec()  # of two local steps
    trainer.args.max_steps = 4
    trainer.add_callback(attached.Rounds(node))
    tensors = tensors_of(base, LORA)
    zero = {tensor.name: np.full(tensor.shape, 0.01, np.float32) for tensor in tensors}
    only_b = frozenset(name for name in zero if ".lora_B." in name)
    final = {name: np.full(value.shape, 0.25, np.float32) for name, value in zero.items()}

    def daemon() -> list[dict[str, Any]]:
        made = [dict(node.handover.train(zero, names, 0, Step(1))) for names in (frozenset(zero), only_b)]
        node.last = final
        node.handover.finish()
        return made

    with ThreadPoolExecutor() as pool:
        rounds = pool.submit(daemon)
        trainer.train()
        first, second = rounds.result()
    assert trainer.state.global_step == 4
    assert all((first[name] != zero[name]).any() for name in zero)
    assert all((second[name] != zero[name]).any() == (name in only_b) for name in zero)
    held = adapter_weights.lora_of(trainer.model).weights
    assert all((weight == 0.25).all() and weight.requires_grad for weight in held.values())


def test_moved__parameters_in_bfloat16__what_did_not_train_is_the_runs() -> None:
    before = {"a": np.float32([0.1, 0.3]), "b": np.float32([0.7, 0.1])}
    weights = {name: torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)) for name in before}
    adapter_weights.put(weights, before)
    placed = adapter_weights.read(weights)
    with torch.no_grad():
        weights["b"] += 0.5
    after = adapter_weights.moved(before, placed, weights)
    assert after["a"].tobytes() == before["a"].tobytes()
    assert after["b"] == pytest.approx(before["b"] + 0.5, abs=4e-3)


def test_in_place_of__left__the_model_is_itself_again() -> None:
    weights = {"a": torch.nn.Parameter(torch.ones(2))}
    with adapter_weights.in_place_of(weights, {"a": np.float32([3, 4])}):
        assert weights["a"].tolist() == [3, 4]
    assert weights["a"].tolist() == [1, 1]


def test_record_bytes__rows_that_json_cannot_say__refused() -> None:
    assert list(attached.record_bytes(ROWS.select([0]))) == [b'{"completion":"0","prompt":"0?"}']
    with pytest.raises(DatasetError, match="row 0 of the trainer's dataset"):
        list(attached.record_bytes([{"a": object()}]))
    with pytest.raises(DatasetError, match="no length"):
        list(attached.record_bytes(iter(())))


def test_refuse_private__a_run_with_privacy_of_examples__is_refused() -> None:
    attached.refuse_private(small_spec())
    with pytest.raises(Refused, match="privacy of examples"):
        attached.refuse_private(dataclasses.replace(small_spec(), privacy=example.plan(None, 8.0, 1e-5)))
