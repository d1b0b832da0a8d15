# SPDX-License-Identifier: Apache-2.0
"""The adapter's shape at a rank: which ranks a run knows, and which names, shapes and alpha go with each.

A run spec names the tensors at its own rank r. A node may train at another rank, and an adapter may hold more ranks
than anybody trains: what `stack` has grown to, or the frozen ranks of a residual. Names never change; A is (rank, k),
B is (d, rank).
"""

import math
from fractions import Fraction

from flb.spec import LoraSpec
from flb.types import LoraMode, TensorSpec

A, B = ".lora_A.weight", ".lora_B.weight"


def at_rank(tensors: tuple[TensorSpec, ...], rank: int) -> tuple[TensorSpec, ...]:
    """The tensors of a run at `rank`, in the same order; what is no LoRA factor stays as it is."""
    return tuple(_at_rank(tensor, rank) for tensor in tensors)


def rank_of(tensors: tuple[TensorSpec, ...]) -> int:
    """The rank of an adapter's tensors, as the first factor has it; 0 where there is none."""
    for tensor in tensors:
        if tensor.name.endswith(A):
            return tensor.shape[0]
        if tensor.name.endswith(B):
            return tensor.shape[1]
    return 0


def largest_rank(lora: LoraSpec) -> int:
    """The largest rank that an adapter of the run may have."""
    return max(lora.r, lora.max_rank) if lora.mode == LoraMode.STACK else lora.r + lora.residual_rank


def has_rank(lora: LoraSpec, rank: int) -> bool:
    """Whether an adapter of the run may have `rank`: its own, that with the residual's, and with `stack` any up to
    the bound."""
    if lora.mode == LoraMode.STACK:
        return 1 <= rank <= largest_rank(lora)
    return rank in (lora.r, lora.r + lora.residual_rank)


def alpha_at(lora: LoraSpec, rank: int) -> int | float:
    """The alpha with which a PEFT adapter of `rank` has the run's scale: s·rank, or s·√rank with rsLoRA."""
    if rank == lora.r:
        return lora.alpha
    if lora.rslora:
        return lora.alpha * math.sqrt(rank / lora.r)
    alpha = Fraction(lora.alpha * rank, lora.r)
    return alpha.numerator if alpha.denominator == 1 else float(alpha)


def _at_rank(tensor: TensorSpec, rank: int) -> TensorSpec:
    if tensor.name.endswith(A):
        return TensorSpec(tensor.name, (rank, tensor.shape[1]))
    if tensor.name.endswith(B):
        return TensorSpec(tensor.name, (tensor.shape[0], rank))
    return tensor
