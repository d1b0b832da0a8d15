# SPDX-License-Identifier: Apache-2.0
"""The mean product against PEFT's own: its combination of adapters by singular values, and its merge into the weight."""

from collections.abc import Callable

import numpy as np
import peft
import pytest
import torch
from transformers.pytorch_utils import Conv1D

from flb.lora import gram, mean_product, product, residual
from tests.flb.lora.stacks import Array, Cohort, cohort

pytestmark = pytest.mark.model

D, K, RANK, ALPHA = 40, 56, 4, 8


class OneLayer(torch.nn.Module):
    """A model of one adapted layer with K inputs and D outputs."""

    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.config = {"model_type": "custom"}
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.layer(x)


LAYERS: dict[str, Callable[[], torch.nn.Module]] = {
    "linear": lambda: torch.nn.Linear(K, D),
    "conv1d": lambda: Conv1D(D, K),  # stores its weight as (k, d)
}


def adapted(kind: str, factors: dict[str, tuple[Array, Array]]) -> peft.PeftModel:
    """A model with the named adapters, each B (d, r) and A (r, k)."""
    torch.manual_seed(0)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], fan_in_fan_out=kind == "conv1d")
    names = list(factors)
    model = peft.get_peft_model(OneLayer(LAYERS[kind]()), config, adapter_name=names[0])
    for name in names[1:]:
        model.add_adapter(name, config)
    layer = model.base_model.model.layer
    for name, (b, a) in factors.items():
        layer.lora_B[name].weight.data = torch.from_numpy(b.astype(np.float32))
        layer.lora_A[name].weight.data = torch.from_numpy(a.astype(np.float32))
    return model


def product_in(model: peft.PeftModel, name: str) -> Array:
    layer = model.base_model.model.layer
    return (layer.lora_B[name].weight @ layer.lora_A[name].weight).detach().numpy().astype(np.float64)


def shares(made: Cohort) -> list[float]:
    return [weight / sum(made.weights) for weight in made.weights]


@pytest.mark.parametrize("kind", LAYERS)
def test_product__peft_combines_by_svd__is_the_same_product(kind: str) -> None:
    made = cohort(D, K, RANK, nodes=3)
    b, a, _ = made.combined()
    model = adapted(kind, {f"node{i}": ends for i, ends in enumerate(made.ends)})
    names = ["node0", "node1", "node2"]
    model.add_weighted_adapter(names, shares(made), "mean", combination_type="svd", svd_rank=RANK)
    theirs = product_in(model, "mean") * model.base_model.model.layer.scaling["mean"]
    ours = b @ a * (ALPHA / RANK)
    assert np.linalg.norm(theirs - ours) < 1e-5 * np.linalg.norm(ours)


@pytest.mark.parametrize("kind", LAYERS)
def test_product__merged_by_peft__is_the_weight_plus_the_scaled_product(kind: str) -> None:
    b, a, _ = cohort(D, K, RANK, nodes=3).combined()
    model, x = adapted(kind, {"mean": (b, a)}), torch.randn(5, K)
    before = model.base_model.model.layer.base_layer.weight.detach().clone()
    adapter = model(x).detach()
    merged = model.merge_and_unload()
    moved = (merged.layer.weight.detach() - before).numpy()
    wanted = b @ a * (ALPHA / RANK)
    wanted = wanted.T if kind == "conv1d" else wanted
    assert np.allclose(moved, wanted, rtol=0, atol=1e-5)
    assert torch.allclose(merged(x), adapter, rtol=0, atol=1e-4 * float(adapter.abs().max()))


@pytest.mark.parametrize("kind", LAYERS)
def test_residual__beside_the_mean_of_factors__is_the_mean_of_the_nodes_outputs(kind: str) -> None:
    """What the whole adapter of rank r + r' computes is what the nodes compute on the weighted average."""
    made, rank = cohort(D, K, RANK, nodes=3), 8
    cut = product.truncate(
        residual.coefficients(made.taken, RANK, 0), gram.of_columns(made.left), gram.of_rows(made.right), rank
    )
    f_b, f_a = product.factors(made.left, made.right, cut, rank, lambda: np.zeros((rank, K)))
    share = mean_product.shares(made.weights, made.ranks, RANK)
    b = made.b + sum(p[0] * part for p, part in zip(share, made.db, strict=True))
    a = made.a + sum(p[0] * part for p, part in zip(share, made.da, strict=True))
    whole = np.hstack([b, f_b]) @ np.vstack([a, f_a])
    x = torch.randn(5, K)
    nodes = adapted(kind, {f"node{i}": ends for i, ends in enumerate(made.ends)})
    mean = torch.zeros(5, D)
    for i, p in enumerate(shares(made)):
        nodes.set_adapter(f"node{i}")
        mean += p * nodes(x).detach()
    with nodes.disable_adapter():
        plain = nodes(x).detach()
    ours = plain + torch.from_numpy((whole * (ALPHA / RANK)).astype(np.float32)).matmul(x.T).T
    assert torch.allclose(ours, mean, rtol=0, atol=1e-4 * float(mean.abs().max()))
