# SPDX-License-Identifier: Apache-2.0
"""The frozen part of an adapter on a loaded model: s·B(A·x), added to what each adapted layer gives.

It hangs on peft's layers as a forward hook, and not as a second adapter of peft: trainers that copy, switch, save or
count adapters meet the trained one alone, somebody's own model keeps its configuration, and the rank may change
between rounds without a layer being built anew. Where peft switches its adapters off (the reference of DPO), this part
is off too. It is float32, has no gradient and no dropout.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch.nn.functional import linear

from flb.delta import Float32
from flb.errors import BadContainer
from flb.lora.parts import thawed

ATTRIBUTE = "flb_frozen_part"
REMEDY = "fetch the adapter that the chain names"


@dataclass(slots=True)
class Frozen:
    """One layer's frozen factors: A is (rank, k), B is (d, rank)."""

    a: torch.Tensor
    b: torch.Tensor
    handle: Any
    """The hook."""


def put(model: Any, parts: Mapping[str, Float32]) -> None:
    """Let the frozen tensors among `parts` take the place of what is frozen now; none for nothing.

    Raises BadContainer, before anything changes, for a tensor that fits no adapted layer of the model.
    """
    layers = dict(_layers(model))
    tensors = thawed(parts)
    paths = {name.rpartition(".lora_")[0] for name in tensors}
    for path in sorted(paths):
        _check(path, layers.get(path), tensors)
    for path, layer in layers.items():
        _take_off(layer)
        if path in paths:
            _hang(layer, tensors[f"{path}.lora_A.weight"], tensors[f"{path}.lora_B.weight"])


@contextmanager
def in_place_of(model: Any, parts: Mapping[str, Float32]) -> Iterator[None]:
    """The model with another frozen part for a while."""
    before = {path: getattr(layer, ATTRIBUTE, None) for path, layer in _layers(model)}
    put(model, parts)
    try:
        yield
    finally:
        for path, layer in _layers(model):
            _take_off(layer)
            if (kept := before.get(path)) is not None:
                kept.handle = layer.register_forward_hook(_added)
                setattr(layer, ATTRIBUTE, kept)


def _layers(model: Any) -> Iterator[tuple[str, LoraLayer]]:
    return ((path, module) for path, module in model.named_modules() if isinstance(module, LoraLayer))


def _check(path: str, layer: LoraLayer | None, tensors: Mapping[str, Float32]) -> None:
    names = [f"{path}.lora_{factor}.weight" for factor in "AB"]
    if layer is None or any(name not in tensors for name in names):
        raise BadContainer(f"the frozen part names {path}, which the model does not adapt", REMEDY)
    a, b = (tensors[name] for name in names)
    if (a.shape[1:], b.shape[:1], a.shape[0]) != ((layer.in_features,), (layer.out_features,), b.shape[1]):
        raise BadContainer(f"the frozen part has shapes {b.shape} and {a.shape} at {path}", REMEDY)


def _hang(layer: LoraLayer, a: Float32, b: Float32) -> None:
    device = next(iter(layer.lora_A.values())).weight.device
    # on a CPU the arrays themselves are used where they may be: a stack is the largest thing beside the base
    held_a, held_b = (torch.from_numpy(np.require(value, np.float32, ["C", "W"])).to(device) for value in (a, b))
    setattr(layer, ATTRIBUTE, Frozen(held_a, held_b, layer.register_forward_hook(_added)))


def _take_off(layer: LoraLayer) -> None:
    if (held := getattr(layer, ATTRIBUTE, None)) is not None:
        held.handle.remove()
        delattr(layer, ATTRIBUTE)


def _added(layer: LoraLayer, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    """The hook: the layer's output with the frozen part."""
    if layer.disable_adapters:
        return output
    held: Frozen = getattr(layer, ATTRIBUTE)
    scale = layer.scaling[layer.active_adapters[0]]
    moved = linear(linear(inputs[0].to(held.a.dtype), held.a), held.b)
    return torch.add(output, moved, alpha=scale).to(output.dtype)
