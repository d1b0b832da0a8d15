# SPDX-License-Identifier: Apache-2.0
"""The frozen part on a model: it counts like the adapter that it came from, and leaves no trace when it goes."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from flb.adapter_blob import form_at
from flb.delta import Float32
from flb.errors import BadContainer
from flb.lora import parts
from flb.lora.peft_config import peft_config
from flb.lora.shape import at_rank
from flb.spec import BaseSpec, LoraSpec
from flb.types import Step
from flb_node import adapter_weights, frozen_part, measurement, trainer
from flb_node.evaluation import HeldOut
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, digest, tensors_of
from tests.sim import small_spec

pytestmark = pytest.mark.model

LORA = LoraSpec("stack", 4, 8, 0.0, ("down_proj", "k_proj", "q_proj"), ranks=(2, 4), max_rank=64)
IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def local(folder: Path) -> LocalTrainer:
    """A node of rank 2."""
    return trainer.load(folder, LORA, tensors_of(folder, LORA), device_map="cpu", dtype="float32", seed=0, rank=2)


def random_adapter(folder: Path, rank: int) -> dict[str, Float32]:
    random = np.random.default_rng(rank)
    tensors = at_rank(tensors_of(folder, LORA), rank)
    return {tensor.name: (random.standard_normal(tensor.shape) * 0.1).astype("f4") for tensor in tensors}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def published(folder: Path, adapter: dict[str, Float32], rank: int, into: Path) -> Any:
    """The adapter as anybody loads it: a PEFT folder on the base."""
    spec = small_spec()
    form = form_at(spec_at(folder), rank)
    into.mkdir()
    (into / "adapter_config.json").write_bytes(peft_config(spec.base, LORA, rank))
    raw = form.header + b"".join(adapter[tensor.name].tobytes() for tensor in form.tensors)
    (into / "adapter_model.safetensors").write_bytes(raw)
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), into)


def spec_at(folder: Path) -> Any:
    return replace(small_spec("stack"), lora=LORA, tensors=tensors_of(folder, LORA), base=BaseSpec("tiny", ""))


def put(local: LocalTrainer, both: parts.Tensors) -> None:
    adapter_weights.put(local.weights, parts.trained(both))
    frozen_part.put(local.model, both)


@pytest.mark.parametrize("rank", [1, 2, 3, 11])
def test_put__an_adapter_in_two_parts__counts_like_the_published_one(
    folder: Path, local: LocalTrainer, tmp_path: Path, rank: int
) -> None:
    whole = random_adapter(folder, rank)
    put(local, parts.split(whole, 2))
    expected = logits(published(folder, whole, rank, tmp_path / "peft"))
    assert torch.allclose(logits(local.model), expected, atol=1e-5)
    assert not torch.allclose(expected, logits(AutoModelForCausalLM.from_pretrained(folder)), atol=1e-3)


def test_put__a_fresh_start_on_a_stack__begins_where_the_stack_is(
    folder: Path, local: LocalTrainer, tmp_path: Path
) -> None:
    whole = random_adapter(folder, 7)
    put(local, parts.start_of(LORA, 0, Step(2), 2, whole))
    assert torch.allclose(logits(local.model), logits(published(folder, whole, 7, tmp_path / "peft")), atol=1e-5)


def test_put__peft_s_own_second_adapter__gives_the_same(folder: Path, local: LocalTrainer) -> None:
    whole = random_adapter(folder, 7)
    frozen_part.put(local.model, parts.frozen(whole))
    ours = logits(local.model)
    frozen_part.put(local.model, {})
    from peft import LoraConfig

    second = LoraConfig(r=7, lora_alpha=14, target_modules=list(LORA.target_modules), task_type="CAUSAL_LM")
    local.model.add_adapter("second", second)
    adapter_weights.put(adapter_weights.weights_of(local.model, "second"), whole)
    local.model.base_model.set_adapter(["default", "second"])
    assert torch.allclose(ours, logits(local.model), atol=1e-6)


def test_put__nothing__leaves_the_model_as_it_was(folder: Path, local: LocalTrainer) -> None:
    before = logits(local.model)
    frozen_part.put(local.model, parts.frozen(random_adapter(folder, 3)))
    assert not torch.equal(logits(local.model), before)
    with local.model.disable_adapter():
        assert torch.equal(logits(local.model), before), "switched off with peft's adapters: the reference of DPO"
    frozen_part.put(local.model, {})
    assert torch.equal(logits(local.model), before)
    assert not any(module._forward_hooks for module in local.model.modules())


def test_in_place_of__another_part__for_a_while(folder: Path, local: LocalTrainer) -> None:
    frozen_part.put(local.model, parts.frozen(random_adapter(folder, 3)))
    before = logits(local.model)
    with frozen_part.in_place_of(local.model, parts.frozen(random_adapter(folder, 5))):
        assert not torch.equal(logits(local.model), before)
    assert torch.equal(logits(local.model), before)
    with frozen_part.in_place_of(local.model, {}):
        assert not torch.equal(logits(local.model), before)
    assert torch.equal(logits(local.model), before)


@pytest.mark.parametrize("what", ["path", "factor", "shape"])
def test_put__a_part_that_fits_no_layer__is_refused_before_anything_changes(
    folder: Path, local: LocalTrainer, what: str
) -> None:
    part = parts.frozen(random_adapter(folder, 3))
    frozen_part.put(local.model, part)
    before = logits(local.model)
    last = max(part)
    if what == "path":
        part = {name.replace("q_proj", "o_proj"): value for name, value in part.items()}
    elif what == "factor":
        del part[last]
    else:
        part[last] = part[last][:-1]
    with pytest.raises(BadContainer):
        frozen_part.put(local.model, part)
    assert torch.equal(logits(local.model), before)


def test_train__a_frozen_part__changes_the_result_and_not_itself(folder: Path, local: LocalTrainer) -> None:
    whole = random_adapter(folder, 6)
    both = parts.start_of(LORA, 0, Step(2), 2, whole)
    names = frozenset(parts.trained(both))

    def train(start: parts.Tensors) -> dict[str, Float32]:
        return local.train(EXAMPLES, start, names, TRAINING, 1, lambda *_: None).adapter

    kept = digest(whole)
    with_it = train(both)
    assert set(with_it) == names and digest(train(both)) == digest(with_it), "the same bits again"
    assert digest(train(parts.trained(both))) != digest(with_it), "and none of the frozen part of the round before"
    assert digest(whole) == kept


@pytest.mark.parametrize("checkpointing", [False, True])
def test_train__with_a_frozen_part__moves_as_with_the_part_merged_into_the_base(
    folder: Path, checkpointing: bool
) -> None:
    load = partial(trainer.load, folder, LORA, tensors_of(folder, LORA), device_map="cpu", dtype="float32", seed=0)
    locals_ = [load(checkpointing=checkpointing, rank=2) for _ in range(2)]
    whole = random_adapter(folder, 6)
    both = parts.start_of(LORA, 0, Step(2), 2, whole)
    layers = dict(locals_[1].model.named_modules())
    with torch.no_grad():
        for name, a in whole.items():
            if name.endswith("_A.weight"):
                moved = torch.from_numpy(whole[name.replace("_A.", "_B.")]) @ torch.from_numpy(a) * LORA.scale
                layers[name.removesuffix(".lora_A.weight")].base_layer.weight += moved
    starts = (both, parts.trained(both))
    one, two = (
        local.train(EXAMPLES, start, frozenset(starts[1]), TRAINING, 1, lambda *_: None)
        for local, start in zip(locals_, starts, strict=True)
    )
    assert np.allclose(one.losses, two.losses, rtol=1e-4)
    for name, value in one.adapter.items():
        assert np.allclose(value, two.adapter[name], atol=2e-3)


def test_measure__an_adapter_of_a_larger_rank__is_measured_whole(
    folder: Path, local: LocalTrainer, tmp_path: Path
) -> None:
    whole = random_adapter(folder, 9)
    frozen_part.put(local.model, parts.frozen(random_adapter(folder, 3)))
    before = logits(local.model)
    figures = []
    model = published(folder, whole, 9, tmp_path / "peft")
    for held, weights in ((local.model, local.weights), (model, adapter_weights.weights_of(model))):
        measure = measurement.measure_with(held, local.tokenizer, weights, HeldOut(EXAMPLES), 96)
        assert measure is not None
        figures.append(list(measure(whole))[-1]["held_out"]["loss"])  # type: ignore[index]
    assert figures[0] == pytest.approx(figures[1], rel=1e-5)
    assert torch.equal(logits(local.model), before), "what was frozen before is back"
