# SPDX-License-Identifier: Apache-2.0
"""DP-SGD on a tiny model: gradients of single examples, noise, and a loss that still falls."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from flb.accounting import epsilon_of_rounds
from flb.delta import Float32
from flb.errors import ConfigError, MissingTool
from flb.lora.parts import trained
from flb.method_config import TrainingConfig
from flb.privacy.example import Secret, Steps, plan
from flb.spec import RunSpec
from flb_node import dp_sgd
from flb_node.data import Example, Message
from flb_node.trainer import LocalTrainer, Trained
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, adapter_of, load, tensors_of
from tests.sim import small_spec

pytestmark = pytest.mark.model

KEY = bytes(range(32))
STEPS = Steps(len(EXAMPLES), TRAINING.batch_size, TRAINING.local_steps, 1.0, 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def local(folder: Path) -> LocalTrainer:
    return load(folder)


@pytest.fixture
def adapter(folder: Path) -> dict[str, Float32]:
    return adapter_of(tensors_of(folder))


def train(local: LocalTrainer, adapter: dict[str, Float32], steps: Steps, key: bytes = KEY) -> Trained:
    training = replace(TRAINING, local_steps=steps.releases)
    secret = Secret(steps, key)
    return local.train(EXAMPLES, adapter, frozenset(trained(adapter)), training, 1, lambda *_: None, secret=secret)


def gradients_of(local: LocalTrainer, rows: Dataset) -> list[Float32]:
    weights = list(local.weights.values())
    local.model.eval()  # no dropout; Opacus' hooks work in training mode alone
    for module in local.model.modules():
        module.training = not isinstance(module, torch.nn.Dropout)
    with dp_sgd.per_example(local.model) as hooks:
        return [gradient for _, gradient in dp_sgd.gradients(local.model, weights, hooks, rows)]


def distance(one: Float32, other: Float32) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_gradients__other_rows_of_other_lengths__leave_an_examples_gradient_alone(
    local: LocalTrainer, adapter: dict[str, Float32]
) -> None:
    train(local, adapter, replace(STEPS, releases=1))  # B is zero at first, and A's gradient with it
    row = {"input_ids": [5, 9, 30, 12, 40, 41, 42], "labels": [-100, -100, 30, 12, 40, 41, 42]}
    (alone,) = gradients_of(local, Dataset.from_list([row]))
    for length in (4, 60):
        other = {"input_ids": list(range(3, 3 + length)), "labels": list(range(3, 3 + length))}
        beside = gradients_of(local, Dataset.from_list([row, other]))
        assert distance(beside[0], alone) < 1e-4 and distance(beside[1], alone) > 0.1


def test_gradients__one_row__is_what_torch_computes(local: LocalTrainer) -> None:
    row = Dataset.from_list([{"input_ids": [5, 9, 30, 12], "labels": [-100, -100, 30, 12]}])
    (found,) = gradients_of(local, row)
    for weight in local.weights.values():
        weight.grad = None
    dp_sgd.example_losses(local.model.eval(), row).sum().backward()
    expected = np.concatenate([weight.grad.flatten().numpy() for weight in local.weights.values()])
    assert distance(found, expected) < 1e-4


def test_train__same_key__gives_the_same_bits_and_another_key_others(
    local: LocalTrainer, adapter: dict[str, Float32]
) -> None:
    one, again, other = (train(local, adapter, replace(STEPS, releases=2), key) for key in (KEY, KEY, bytes(32)))
    assert all(np.array_equal(one.adapter[name], again.adapter[name]) for name in adapter)
    assert not all(np.array_equal(one.adapter[name], other.adapter[name]) for name in adapter)


def test_train__more_noise__is_in_the_gradient(local: LocalTrainer, adapter: dict[str, Float32]) -> None:
    """The last gradient is left in the weights: its size is that of the noise, over the batch."""
    train(local, adapter, replace(STEPS, releases=1, noise_multiplier=50.0))
    left = np.concatenate([weight.grad.flatten().numpy() for weight in local.weights.values()])
    assert float(left.std()) == pytest.approx(50.0 / STEPS.batch, rel=0.05)


def test_train__ended__leaves_nothing_of_opacus_in_the_model(local: LocalTrainer, adapter: dict[str, Float32]) -> None:
    train(local, adapter, replace(STEPS, releases=1))
    assert not any(hasattr(weight, "grad_sample") for weight in local.model.parameters())
    assert not any(module._backward_hooks for module in local.model.modules())


def test_train__epsilon_of_eight__still_lowers_the_loss(local: LocalTrainer, adapter: dict[str, Float32]) -> None:
    examples = tuple(
        Example((Message("user", f"What follows {i}?"), Message("assistant", f"After {i} comes {i + 1}.")))
        for i in range(200)
    )
    steps = Steps(200, 16, 40, 1.0, 0.9)
    cost = epsilon_of_rounds(noise_multiplier=0.9, sampling_rate=steps.rate, rounds=40, delta=1e-5)
    training = replace(TRAINING, batch_size=16, local_steps=40, learning_rate=1e-2)
    made = local.train(examples, adapter, frozenset(adapter), training, 1, lambda *_: None, secret=Secret(steps, KEY))
    assert cost <= 8 and np.mean(made.losses[-5:]) < np.mean(made.losses[:5]) - 0.1


def test_group_size__a_base_of_few_bits__is_one(local: LocalTrainer, folder: Path) -> None:
    assert dp_sgd.group_size(local.model, 4) == 4 and dp_sgd.group_size(load(folder, dtype="bfloat16").model, 4) == 1


def spec_of(objective: str = "sft") -> RunSpec:
    plain = small_spec()
    return replace(plain, privacy=plan(None, 8.0, 1e-5), training=replace(plain.training, objective=objective))


@pytest.mark.parametrize(
    ("settings", "processes", "what"),
    [({"packing": True}, 1, "packing"), ({"gradient_checkpointing": True}, 1, "checkpointing"), ({}, 2, "processes")],
)
def test_check__settings_that_mix_examples__are_refused(settings: dict[str, bool], processes: int, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        dp_sgd.check(spec_of(), TrainingConfig(**settings), processes)
    dp_sgd.check(small_spec(), TrainingConfig(**settings), processes)


def test_check__preferences__are_refused() -> None:
    with pytest.raises(ConfigError, match="dpo"):
        dp_sgd.check(spec_of("dpo"), TrainingConfig(), 1)


def test_check__opacus_missing__is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(MissingTool, match=r"flb\[dp\]"):
        dp_sgd.check(spec_of(), TrainingConfig(), 1)
