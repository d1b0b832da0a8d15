# SPDX-License-Identifier: Apache-2.0
"""The LoRA parameters of a model by the names of the run spec, to read them and to put others in their place.

In place: optimizers, compiled graphs and the trainer keep the parameters that they hold.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from flb.delta import Float32
from flb.errors import BadContainer, Refused, WrongBaseModel
from flb.lora import shape
from flb.spec import LoraSpec
from flb.types import TensorSpec

Weights = Mapping[str, torch.nn.Parameter]
FACTORS = (".lora_A.", ".lora_B.")
REMEDY = "fetch the adapter that the chain names"


@dataclass(frozen=True, slots=True)
class Lora:
    """The active adapter of somebody's model: its parameters by their names in the adapter file, and its scale."""

    weights: dict[str, torch.nn.Parameter]
    alpha: float
    scaled_otherwise: str
    """The name of a peft setting that changes how the adapter counts beyond alpha / r; empty for none."""


def lora_of(model: Any) -> Lora:
    """The active LoRA adapter of a model. Raises Refused for a model without one, or that trains something else too."""
    configs, active = getattr(model, "peft_config", None) or {}, str(getattr(model, "active_adapter", ""))
    config = configs.get(active)
    if config is None or str(getattr(config.peft_type, "value", config.peft_type)) != "LORA":
        raise Refused(
            f"the trainer's model ({type(model).__name__}) has no LoRA adapter",
            "give SFTTrainer a peft_config=LoraConfig(...), or wrap the model with get_peft_model",
        )
    weights = weights_of(model, active)
    carried = set(map(id, weights.values()))
    for name, weight in model.named_parameters():
        if weight.requires_grad and id(weight) not in carried:
            raise Refused(
                f"the model also trains {name}, which a run of LoRA adapters does not carry",
                "freeze it: leave out modules_to_save, bias, DoRA and other adapters",
            )
    odd = [name for name in ("use_rslora", "use_dora", "alpha_pattern") if getattr(config, name, None)]
    return Lora(weights, float(config.lora_alpha), odd[0] if odd else "")


def weights_of(model: Any, adapter: str = "default") -> dict[str, torch.nn.Parameter]:
    """Parameters of one adapter by their names in peft's files, which leave the adapter's own name out."""
    weights = {}
    for name, weight in model.named_parameters():
        for factor in FACTORS:
            if f"{factor}{adapter}." in name:
                weights[name.replace(f"{factor}{adapter}.", factor)] = weight
    return dict(sorted(weights.items()))


def rank_of(weights: Weights) -> int:
    """The rank of an adapter on a model."""
    return next(int(weight.shape[0]) for name, weight in weights.items() if name.endswith(".lora_A.weight"))


def compare(lora: Lora, spec: LoraSpec, tensors: Sequence[TensorSpec]) -> None:
    """Raise WrongBaseModel for the first tensor that model and run don't share, Refused for another scale. `tensors` are the
    run's, at the rank that this node trains at."""
    rank = shape.rank_of(tuple(tensors)) or spec.r
    remedy = f"take the run's base model, and LoraConfig(r={rank}, target_modules={list(spec.target_modules)})"
    compare_tensors(lora.weights, tensors, "the model", remedy)
    rslora = lora.scaled_otherwise == "use_rslora"
    if spec.rslora and not lora.scaled_otherwise:
        raise Refused("the run scales its adapter by rsLoRA, this one is not", "set use_rslora=True")
    if lora.scaled_otherwise and not (spec.rslora and rslora):
        raise Refused(f"the adapter is made with {lora.scaled_otherwise}, which the run does not know", "leave it out")
    alpha = shape.alpha_at(spec, rank)
    if lora.alpha != alpha:
        raise Refused(f"lora_alpha is {lora.alpha:g} here and {alpha:g} in the run", f"set lora_alpha={alpha:g}")


def compare_tensors(weights: Weights, tensors: Sequence[TensorSpec], model: str, remedy: str) -> None:
    """Raise WrongBaseModel for the first tensor, by name, that model and run don't share; it says `model` and `remedy`."""
    wanted = {tensor.name: tensor.shape for tensor in tensors}
    for name in sorted(set(wanted) | set(weights)):
        here = tuple(weights[name].shape) if name in weights else None
        there = wanted.get(name)
        if here != there:
            raise WrongBaseModel(
                f"{model} does not fit the run: adapter tensor {name} is {here or 'absent'} here and "
                f"{there or 'absent'} there",
                remedy,
            )


def read(weights: Weights) -> dict[str, Float32]:
    """Copies of all values, float32."""
    return {name: weight.detach().float().cpu().numpy().copy() for name, weight in weights.items()}


def put(weights: Weights, adapter: Mapping[str, Float32]) -> None:
    """Write an adapter over the values, in place. Raises BadContainer for other names or shapes, before it writes."""
    if set(adapter) != set(weights):
        raise BadContainer("the adapter has other tensors than this run", REMEDY)
    for name, weight in weights.items():
        if adapter[name].shape != tuple(weight.shape):
            raise BadContainer(
                f"tensor {name} of the adapter has shape {adapter[name].shape}, not {tuple(weight.shape)}", REMEDY
            )
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(torch.from_numpy(np.array(adapter[name], dtype=np.float32)))


def let_train(weights: Weights, trainable: frozenset[str]) -> None:
    """From now on only these tensors train, without what is left of earlier gradients."""
    assert trainable <= set(weights), f"there is no {min(trainable - set(weights))}"
    for name, weight in weights.items():
        weight.requires_grad_(name in trainable)
        weight.grad = None


@contextmanager
def in_place_of(weights: Weights, adapter: Mapping[str, Float32]) -> Iterator[None]:
    """The model with another adapter for a while."""
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    put(weights, adapter)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def moved(before: Mapping[str, Float32], placed: Mapping[str, Float32], weights: Weights) -> dict[str, Float32]:
    """The adapter after training, from the run's (`before`) and the parameters' own (`placed`) values at the start.

    Parameters of a smaller type hold the run's values rounded. What counts is how far training moved them, so that a
    tensor that did not train is the run's, bit for bit.
    """
    after = read(weights)
    for name, weight in weights.items():
        if weight.dtype != torch.float32:
            after[name] = (before[name] + (after[name] - placed[name])).astype(np.float32)
    return after
