# SPDX-License-Identifier: Apache-2.0
"""Which factors a step trains, sends and averages: the dispatch over LoRA modes."""

from collections.abc import Callable

from flb.lora import alternate, factors, freeze_a, product, stack
from flb.types import LoraMode, Step, TensorSpec

SENT: dict[LoraMode, Callable[[tuple[TensorSpec, ...], Step], tuple[TensorSpec, ...]]] = {
    LoraMode.FACTORS: factors.sent,
    LoraMode.ALTERNATE: alternate.sent,
    LoraMode.FREEZE_A: freeze_a.sent,
    LoraMode.PRODUCT: product.sent,
    LoraMode.STACK: stack.sent,
}
assert set(SENT) == set(LoraMode), "every LoRA mode says what it sends"


def sent(mode: LoraMode, tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """The tensors that step `step` trains and sends, in the order of the adapter."""
    return SENT[mode](tensors, step)
