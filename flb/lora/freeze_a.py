# SPDX-License-Identifier: Apache-2.0
"""Mode `freeze_a` (FFA-LoRA, Sun et al., ICLR 2024, arXiv 2403.12313): B alone is trained, A stays adapter 0's.

Exact: with one A for all, the mean of B is the mean of the products.
"""

from flb.capabilities import ModeCapabilities
from flb.types import Step, TensorSpec

CAPABILITIES = ModeCapabilities(linear=True, both_factors=False, exact=True, bit_exact=True)


def sent(tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """B, in every step."""
    return tuple(tensor for tensor in tensors if tensor.name.endswith(".lora_B.weight"))
