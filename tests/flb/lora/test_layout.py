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
    with pytest.raises(Refused, match=r"'k_proj' matches no layer.*it has q_proj, down_proj"):
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


@pytest.mark.parametrize(
    ("model_type", "name", "first"),
    [("phi3", "q_proj", "qkv_proj"), ("phi3", "up_proj", "gate_up_proj"), ("", "dwon_proj", "down_proj")],
)
def test_resolve__a_name_that_the_model_fuses_or_that_is_misspelt__names_the_right_one_first(
    model_type: str, name: str, first: str
) -> None:
    modules = ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")
    base = tuple(TensorSpec(f"model.layers.0.{module}.weight", (8, 8)) for module in modules)
    with pytest.raises(Refused, match=f"'{name}' matches no layer of the base model: it has {first}, "):
        resolve(base, (name,), model_type)


def test_resolve__gpt2__has_its_prefix_put_in_front_and_its_shapes_turned() -> None:
    base = (TensorSpec("wte.weight", (100, 8)), TensorSpec("h.0.attn.c_attn.weight", (8, 24)))
    assert resolve(base, "all-linear", "gpt2") == {"transformer.h.0.attn.c_attn": (24, 8)}


def test_resolve__a_mixture_of_experts__leaves_experts_and_router_out() -> None:
    names = ("self_attn.q_proj", "mlp.gate", "mlp.experts.0.up_proj", "mlp.shared_expert_gate")
    base = tuple(TensorSpec(f"model.layers.0.{name}.weight", (8, 8)) for name in names)
    assert module_names(resolve(base, "all-linear")) == ("q_proj", "shared_expert_gate")


def test_resolve__linear_layers_outside_of_blocks__are_linear_layers() -> None:
    base = (*BASE, TensorSpec("model.decoder.project_in.weight", (8, 4)))
    assert "model.decoder.project_in" in resolve(base, "all-linear")
