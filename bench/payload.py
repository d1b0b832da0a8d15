# SPDX-License-Identifier: Apache-2.0
"""The adapters that benches work on: names and shapes of every tensor, written once."""

from bench.peers.payload import FULL_MIB, MODULES, RANK
from flb.lora.layout import adapter_tensors
from flb.types import TensorSpec

LLAMA_8B = {
    f"{'mlp' if name.startswith(('gate', 'up', 'down')) else 'self_attn'}.{name}": shape
    for name, shape in MODULES.items()
}
"""(d, k) of the linear layers in one block of Llama-3.1-8B."""

MIB_OF_32_LAYERS = FULL_MIB
"""What LoRA of rank 16 on all linear layers of Llama-3.1-8B takes in float32."""


def llama_8b_r16(layers: int = 32) -> tuple[TensorSpec, ...]:
    """Rank 16 on Llama-3.1-8B: 448 tensors, 41,943,040 parameters, 160 MiB in float32; 5 MiB a layer."""
    modules = {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in LLAMA_8B.items()}
    return adapter_tensors(modules, RANK)
