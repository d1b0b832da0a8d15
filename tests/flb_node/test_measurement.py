# SPDX-License-Identifier: Apache-2.0
"""Measuring an adapter with a loaded model: right figures, and the model as it was."""

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flb.errors import DatasetError, MissingTool
from flb.spec import LoraSpec
from flb_node import measurement, tokens, trainer
from flb_node.data import Example, Message
from flb_node.evaluation import Figures, HeldOut
from flb_node.held_out import measure
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import tensors_of

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 2, 4, 0.5, ("q_proj", "down_proj"))
EXAMPLES = tuple(Example((Message("user", "x" * n), Message("assistant", "yes " * n))) for n in range(1, 8))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalTrainer:
    base = tiny_model.build(tmp_path_factory.mktemp("base"))
    return trainer.load(base, LORA, tensors_of(base, LORA), device_map="cpu", dtype="float32", seed=0)


def whole(pieces: Iterator[Figures | None]) -> Figures:
    """The last piece, and None before it."""
    *before, last = pieces
    assert all(piece is None for piece in before) and last is not None
    return last


def test_measure__training_between_two_pieces__changes_no_figure(local: LocalTrainer) -> None:
    other = {name: np.full(tuple(weight.shape), 0.3, np.float32) for name, weight in local.weights.items()}
    measured = measurement.measure_with(local.model, local.tokenizer, local.weights, HeldOut(EXAMPLES), 99)
    assert measured is not None
    expected, seen = whole(measured(other))["held_out"], []
    for piece in measured(other):
        seen.append(piece)
        with torch.no_grad():
            next(iter(local.weights.values())).add_(1.0)
        assert not torch.is_inference_mode_enabled()
    assert seen[:-1] == [None] * 2 and seen[-1] is not None and seen[-1]["held_out"] == expected
    with torch.no_grad():
        next(iter(local.weights.values())).sub_(3.0)


def test_measure__adapter__its_figures_and_the_model_as_it_was(local: LocalTrainer) -> None:
    before = {name: weight.detach().clone() for name, weight in local.weights.items()}
    other = {name: np.full(tuple(weight.shape), 0.3, np.float32) for name, weight in local.weights.items()}
    held_out = HeldOut(EXAMPLES, EXAMPLES[:2], "ab" * 32)
    measured = measurement.measure_with(local.model, local.tokenizer, local.weights, held_out, 99)
    assert measured is not None
    local.model.train()
    plain, tuned = whole(measured({name: weight.numpy() for name, weight in before.items()})), whole(measured(other))
    assert local.model.training and whole(measured(other))["held_out"] == tuned["held_out"], "dropout is off"
    assert all(torch.equal(weight, before[name]) for name, weight in local.weights.items())
    local.model.eval()
    rows = tokens.encode_all(local.tokenizer, EXAMPLES, 99)
    assert plain["held_out"]["loss"] == pytest.approx(measure(local.model, rows).loss, rel=1e-6)
    assert tuned["held_out"]["loss"] != pytest.approx(plain["held_out"]["loss"], rel=1e-3)
    assert plain["held_out"]["perplexity"] == pytest.approx(math.exp(plain["held_out"]["loss"]))
    assert plain["shared"]["file"] == "ab" * 32 and plain["shared"]["tokens"] < plain["held_out"]["tokens"]


def test_measure__accuracy__counts_the_tokens_that_the_model_would_choose(local: LocalTrainer) -> None:
    rows = tokens.encode_all(local.tokenizer, EXAMPLES, 99)
    hits = 0
    for row in rows:
        with torch.no_grad():
            guesses = local.model(input_ids=torch.tensor([row.ids])).logits[0].argmax(-1)
        hits += sum(int(guesses[at - 1]) == row.ids[at] for at in range(row.start, len(row.ids)))
    found = measure(local.model, rows, batch=3)
    assert found.accuracy == pytest.approx(hits / found.tokens)
    assert found.tokens == sum(len(row.ids) - row.start for row in rows)


def test_measure_with__nothing_held_out__none(local: LocalTrainer) -> None:
    assert measurement.measure_with(local.model, local.tokenizer, local.weights, HeldOut(), 99) is None


def test_measure_with__nothing_fits__names_the_setting(local: LocalTrainer) -> None:
    with pytest.raises(DatasetError, match=r"client.shared_held_out: each of the 7 examples"):
        measurement.measure_with(local.model, local.tokenizer, local.weights, HeldOut((), EXAMPLES), 4)


def test_lm_eval__not_installed__one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lm_eval" else found(name))
    with pytest.raises(MissingTool, match=r"names arc_easy, and the package lm_eval is not installed: install it with"):
        measurement.lm_eval_judge(("arc_easy",), 10)
    assert measurement.lm_eval_judge(None, 10) is None


def test_measure__further_judge__its_figures_stand_beside(local: LocalTrainer, tmp_path: Path) -> None:
    def judge(model: object, tokenizer: object) -> dict[str, object]:
        assert model is local.model and tokenizer is local.tokenizer
        return {"task": {"acc": 0.25}}

    measured = measurement.measure_with(local.model, local.tokenizer, local.weights, HeldOut(), 99, judge)
    assert measured is not None
    adapter = {name: weight.detach().numpy().copy() for name, weight in local.weights.items()}
    assert whole(measured(adapter))["lm_eval"] == {"task": {"acc": 0.25}}
