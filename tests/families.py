# SPDX-License-Identifier: Apache-2.0
"""Tiny random models of the real architectures, made without network: all in them but size and wit is the family's.

python -m tests.families FAMILY FOLDER
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import tiny_model

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ATTENTION = ("k_proj", "o_proj", "q_proj", "v_proj")


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture: the folder of its example, transformers' `model_type`, all its linear modules by last name,
    and what its configuration needs beyond `SIZES` (None drops a key)."""

    example: str
    model_type: str
    modules: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


MLP = ("down_proj", "gate_proj", "up_proj")
FAMILIES = (
    Family("phi-3", "phi3", ("down_proj", "gate_up_proj", "o_proj", "qkv_proj")),
    Family("llama-3.1", "llama", (*ATTENTION, *MLP)),
    Family("gemma-2", "gemma2", (*ATTENTION, *MLP), {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64}),
    Family(
        "minicpm",
        "minicpm3",
        ("kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj", *MLP),
        {"q_lora_rank": 16, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
         "num_key_value_heads": 4},
    ),
    Family(
        "falcon",
        "falcon",
        ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"),
        {"intermediate_size": None, "num_key_value_heads": None, "ffn_hidden_size": 64},
    ),
    Family("qwen2", "qwen2", (*ATTENTION, *MLP)),
    Family("chatglm", "glm", (*ATTENTION, "down_proj", "gate_up_proj"), {"head_dim": 8, "pad_token_id": 0}),
)  # fmt: skip


def build(family: Family, folder: Path, seed: int = 0) -> Path:
    """Write the model (float32, 2 layers) and a byte-level tokenizer with a chat template to `folder`; return it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = tiny_model.tokenizer()
    sizes = {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    settings = {key: value for key, value in {**sizes, **family.settings}.items() if value is not None}
    config = AutoConfig.for_model(family.model_type, **settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def by_example(example: str) -> Family:
    """The family whose example is in this folder."""
    return next(family for family in FAMILIES if family.example == example)


if __name__ == "__main__":
    build(by_example(sys.argv[1]), Path(sys.argv[2]))
