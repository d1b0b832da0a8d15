# SPDX-License-Identifier: Apache-2.0
"""Mode `alternate` (RoLoRA, Chen et al., NeurIPS 2025, arXiv 2502.01755): B and A take turns.

Exact: with one factor shared and frozen, the mean of the other is the mean of the products. B has the first turn,
since with B = 0 the gradient of A vanishes.
"""

from flb.capabilities import ModeCapabilities
from flb.types import Step, TensorSpec

CAPABILITIES = ModeCapabilities(linear=True, both_factors=False, exact=True, bit_exact=True)


def sent(tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """B in odd steps, A in even ones."""
    factor = ".lora_B.weight" if step % 2 == 1 else ".lora_A.weight"
    return tuple(tensor for tensor in tensors if tensor.name.endswith(factor))
