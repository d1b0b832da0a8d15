# SPDX-License-Identifier: Apache-2.0
"""An adapter in two parts: what a node trains, and what stays frozen beside it.

A step's training starts from the trained part, and the update is that part's alone. Both travel as one mapping: the
frozen tensors have the names that peft gives to a second adapter called `frozen`. The parts add up, since
[B₁ B₂]·[A₁; A₂] = B₁A₁ + B₂A₂.
"""

from collections.abc import Mapping

import numpy as np

from flb.delta import Float32
from flb.lora import adapter_zero
from flb.lora.shape import A, B
from flb.spec import LoraSpec
from flb.types import LoraMode, Step, TensorSpec

FROZEN = ".frozen.weight"
Tensors = Mapping[str, Float32]
"""A has shape (rank, k), B (d, rank)."""


def start_of(lora: LoraSpec, seed: int, step: Step, rank: int, adapter: Tensors) -> dict[str, Float32]:
    """What a node of `rank` trains in `step`, from the step's adapter, and what it freezes.

    `stack` trains a fresh adapter and freezes all; adapter 0 is left out, for its B is zero. `product` trains the
    first `rank` ranks, which are the largest, and leaves the others out (FlexLoRA). Every other mode trains its own
    ranks and freezes what lies beyond them, which is a residual.
    """
    if lora.mode == LoraMode.STACK:
        return {**fresh(adapter, seed, step, rank), **(frozen(adapter) if step > 1 else {})}
    if lora.mode == LoraMode.PRODUCT:
        return ranks_of(adapter, 0, rank)
    return split(adapter, rank)


def split(adapter: Tensors, rank: int) -> dict[str, Float32]:
    """The whole adapter on a model that trains at `rank`: the first ranks in its trained part, filled up with zeros where
    the adapter has fewer, the others frozen."""
    held = max((value.shape[0] for name, value in adapter.items() if name.endswith(A)), default=rank)
    if held > rank:
        return {**ranks_of(adapter, 0, rank), **frozen(ranks_of(adapter, rank, held))}
    return {name: _padded(name, value, rank - held) for name, value in adapter.items()}


def trained(parts: Tensors) -> dict[str, Float32]:
    """The trained part alone."""
    return {name: value for name, value in parts.items() if not name.endswith(FROZEN)}


def frozen(adapter: Tensors) -> dict[str, Float32]:
    """An adapter's tensors under the names of the frozen part."""
    return {name.removesuffix(".weight") + FROZEN: value for name, value in adapter.items()}


def thawed(parts: Tensors) -> dict[str, Float32]:
    """The frozen part alone, under the names of an adapter."""
    return {name.removesuffix(FROZEN) + ".weight": value for name, value in parts.items() if name.endswith(FROZEN)}


def ranks_of(adapter: Tensors, first: int, last: int) -> dict[str, Float32]:
    """Ranks `first` to before `last`: these rows of A and columns of B."""
    return {name: value[:, first:last] if name.endswith(B) else value[first:last] for name, value in adapter.items()}


def fresh(adapter: Tensors, seed: int, step: Step, rank: int) -> dict[str, Float32]:
    """A new adapter of `rank` for a step, the same on every node: A from adapter zero's stream for the step, B = 0."""
    made = {}
    for name, value in adapter.items():
        tensor = TensorSpec(name, (value.shape[0], rank) if name.endswith(B) else (rank, value.shape[1]))
        made[name] = np.concatenate(list(adapter_zero.blocks(tensor, seed, step))).reshape(tensor.shape)
    return made


def _padded(name: str, value: Float32, missing: int) -> Float32:
    if not missing:
        return value
    return np.pad(value, ((0, 0), (0, missing)) if name.endswith(B) else ((0, missing), (0, 0)))
