# SPDX-License-Identifier: Apache-2.0
"""From base shapes to adapter shapes."""

import pytest

from flb.errors import Refused
from flb.lora.layout import adapter_tensors, module_names, resolve
from flb.types import TensorSpec

pytestmark = pytest.mark.unit

BASE = (
    TensorSpec("model.embed_tokens.weight", (100, 8)),
    TensorSpec("lm_head.weight", (100, 8)),
    TensorSpec("model.norm.weight", (8,)),
    TensorSpec("model.layers.0.self_attn.q_proj.weight", (8, 8)),
    TensorSpec("model.layers.0.mlp.down_proj.weight", (8, 32)),
    TensorSpec("model.layers.0.input_layernorm.weight", (8,)),
)


def test_resolve__all_linear__leaves_embeddings_heads_and_norms_out() -> None:
    modules = resolve(BASE, "all-linear")
    assert set(modules) == {"model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"}
    assert module_names(modules) == ("down_proj", "q_proj")


def test_resolve__a_name_that_matches_nothing__is_refused_with_the_known_ones() -> None:
    with pytest.raises(Refused, match=r"'k_proj' matches no layer.*down_proj.*q_proj"):
        resolve(BASE, ("q_proj", "k_proj"))


def test_resolve__no_linear_layers__is_refused() -> None:
    with pytest.raises(Refused, match="no linear layer"):
        resolve(BASE[:3], "all-linear")


def test_adapter_tensors__names_and_shapes__are_peft_s() -> None:
    tensors = adapter_tensors(resolve(BASE, ("down_proj",)), r=2)
    assert tensors == (
        TensorSpec("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", (2, 32)),
        TensorSpec("base_model.model.model.layers.0.mlp.down_proj.lora_B.weight", (8, 2)),
    )
