# SPDX-License-Identifier: Apache-2.0
"""Training that can't succeed ends with a sentence: a loss that is no number, an adapter that does not move."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from flb.delta import Float32
from flb.errors import TrainingFailed
from flb_node.step_watch import check_finite
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, adapter_of, digest, load, tensors_of, train

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalTrainer:
    return load(tiny_model.build(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def zero(local: LocalTrainer) -> dict[str, Float32]:
    return adapter_of(tensors_of(Path(local.tokenizer.name_or_path)))


def test_train__loss_nan__training_failed_and_the_next_one_is_well(
    local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    expected = digest(train(local, zero).adapter)
    wild = replace(TRAINING, learning_rate=1e30)
    with pytest.raises(TrainingFailed, match="the loss of optimizer step 2 is nan: nothing is sent for this round"):
        local.train(EXAMPLES, zero, frozenset(zero), wild, 1, lambda *_: None)
    assert digest(train(local, zero).adapter) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_check_finite__adapter_of_the_last_step__training_failed(value: float) -> None:
    with pytest.raises(TrainingFailed, match=f"the adapter of optimizer step 6 is {value}"):
        check_finite(value, 6, "adapter")
    check_finite(3e38, 6, "adapter")


def test_train__no_gradient__training_failed_after_the_first_step(
    local: LocalTrainer, zero: dict[str, Float32]
) -> None:
    """With B = 0 the gradient of A is zero: training A alone goes nowhere."""
    seen = []
    names = frozenset(name for name in zero if ".lora_A." in name)
    with pytest.raises(TrainingFailed, match="the first optimizer step did not move the adapter"):
        local.train(EXAMPLES, zero, names, TRAINING, 1, lambda *values: seen.append(values))
    assert len(seen) <= 1


def test_train__learning_rate_zero__is_no_fault(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    still = local.train(EXAMPLES, zero, frozenset(zero), replace(TRAINING, learning_rate=0.0), 1, lambda *_: None)
    assert digest(still.adapter) == digest(zero)


def test_train__schedule__is_the_rate_of_the_place_in_the_run(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    """AdamW's first step moves each value by its rate: half way through a linear run by half of it."""
    linear = replace(TRAINING, lr_schedule="linear", local_steps=1)
    name = next(name for name in zero if ".lora_B." in name)
    moved = [
        abs(
            local.train(EXAMPLES, zero, frozenset(zero), linear, 1, lambda *_: None, step=step, steps=4).adapter[name]
        ).max()
        for step in (0, 2)
    ]
    assert moved[1] == pytest.approx(moved[0] / 2, rel=1e-4)


def test_train__epochs__as_many_steps_as_the_data_give(local: LocalTrainer, zero: dict[str, Float32]) -> None:
    passes = replace(TRAINING, local_steps=100, local_epochs=2)
    done = local.train(EXAMPLES, zero, frozenset(zero), passes, 1, lambda *_: None)
    assert len(done.losses) == 10
