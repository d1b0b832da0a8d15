# SPDX-License-Identifier: Apache-2.0
"""The adapters that benches work on: names and shapes of every tensor, written once."""

from bench.peers.payload import FULL_MIB, MODULES, RANK
from flb.lora.layout import adapter_tensors
from flb.types import TensorSpec

Shapes = dict[str, tuple[int, int]]

LLAMA_8B: Shapes = {
    f"{'mlp' if name.startswith(('gate', 'up', 'down')) else 'self_attn'}.{name}": shape
    for name, shape in MODULES.items()
}
"""(d, k) of the linear layers in one block of Llama-3.1-8B."""

SMOLLM2_135M: Shapes = {
    "self_attn.q_proj": (576, 576), "self_attn.k_proj": (192, 576), "self_attn.v_proj": (192, 576),
    "self_attn.o_proj": (576, 576), "mlp.gate_proj": (1536, 576), "mlp.up_proj": (1536, 576),
    "mlp.down_proj": (576, 1536),
}  # fmt: skip

MIB_OF_32_LAYERS = FULL_MIB
"""What LoRA of rank 16 on all linear layers of Llama-3.1-8B takes in float32."""


def adapter(shapes: Shapes, layers: int, r: int) -> tuple[TensorSpec, ...]:
    """LoRA of rank `r` on these layers of every block."""
    modules = {f"model.layers.{n}.{name}": shape for n in range(layers) for name, shape in shapes.items()}
    return adapter_tensors(modules, r)


def llama_8b_r16(layers: int = 32) -> tuple[TensorSpec, ...]:
    """Rank 16 on Llama-3.1-8B: 448 tensors, 41,943,040 parameters, 160 MiB in float32; 5 MiB a layer."""
    return adapter(LLAMA_8B, layers, RANK)


def smollm2_135m_r8() -> tuple[TensorSpec, ...]:
    """Rank 8 on SmolLM2-135M, the demo's adapter: 2.4 million parameters."""
    return adapter(SMOLLM2_135M, 30, 8)
