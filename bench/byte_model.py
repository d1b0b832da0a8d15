# SPDX-License-Identifier: Apache-2.0
"""A transformer over bytes that is small enough to compare methods on two cores: 3 layers, 0.36 million parameters.

LoRA sits on six linear layers of each block. A second, frozen adapter may stand beside the trained one, as modes that
stack or carry a residual need it.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from bench.byte_corpus import Bytes
from flb.delta import Float32
from flb.types import TensorSpec

WIDTH, LAYERS, HEADS, LENGTH = 96, 3, 4, 128
SHAPES = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH), "up": (4 * WIDTH, WIDTH),
          "down": (WIDTH, 4 * WIDTH)}  # fmt: skip
"""Outputs and inputs of the adapted layers of a block."""
MEASURED = 64
"""Rows of each kind that a loss is measured on."""
Weights = Mapping[str, torch.Tensor]


def path_of(layer: int, name: str) -> str:
    """A module's path, as peft would name it."""
    return f"base_model.model.layers.{layer}.{name}"


def adapter_tensors(rank: int) -> tuple[TensorSpec, ...]:
    """Names and shapes of the adapter, in the order of a run spec."""
    tensors = []
    for layer in range(LAYERS):
        for name, (outputs, inputs) in SHAPES.items():
            path = path_of(layer, name)
            tensors.append(TensorSpec(f"{path}.lora_A.weight", (rank, inputs)))
            tensors.append(TensorSpec(f"{path}.lora_B.weight", (outputs, rank)))
    return tuple(sorted(tensors, key=lambda tensor: tensor.name.encode()))


def fresh(seed: int) -> dict[str, torch.Tensor]:
    """Parameters before any training, float32."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, deviation: float = 0.02) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * deviation

    weights = {"embedding": normal(256, WIDTH, deviation=0.1), "position": normal(LENGTH, WIDTH)}
    for layer in range(LAYERS):
        for name, (outputs, inputs) in SHAPES.items():
            weights[path_of(layer, name)] = normal(outputs, inputs, deviation=inputs**-0.5)
    return weights


def linear(x: torch.Tensor, path: str, base: Weights, adapter: Weights, scale: float) -> torch.Tensor:
    """One layer with whatever adapters there are."""
    y = functional.linear(x, base[path])
    for form in (".weight", ".frozen.weight"):
        a, b = (adapter.get(f"{path}.{factor}{form}") for factor in ("lora_A", "lora_B"))
        if a is not None and b is not None:
            y = y + scale * functional.linear(functional.linear(x, a), b)
    return y


def loss_of(tokens: torch.Tensor, base: Weights, adapter: Weights, scale: float) -> torch.Tensor:
    """Mean negative log likelihood in nats a byte of rows of `LENGTH` + 1 bytes."""
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    count, length = inputs.shape
    x = base["embedding"][inputs] + base["position"][:length]
    for layer in range(LAYERS):
        normed = functional.layer_norm(x, (WIDTH,))
        q, k, v = (
            linear(normed, path_of(layer, name), base, adapter, scale).view(count, length, HEADS, -1).transpose(1, 2)
            for name in "qkv"
        )
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(x.shape)
        x = x + linear(seen, path_of(layer, "o"), base, adapter, scale)
        hidden = linear(functional.layer_norm(x, (WIDTH,)), path_of(layer, "up"), base, adapter, scale)
        x = x + linear(functional.gelu(hidden), path_of(layer, "down"), base, adapter, scale)
    logits = functional.layer_norm(x, (WIDTH,)) @ base["embedding"].T * (WIDTH**-0.5 * 4)
    return functional.cross_entropy(logits.reshape(-1, 256), targets.reshape(-1))


def rows(blocks: Bytes, count: int, random: np.random.Generator) -> torch.Tensor:
    """`count` rows of `LENGTH` + 1 bytes, each from somewhere in one block."""
    chosen = random.integers(0, len(blocks), count)
    starts = random.integers(0, blocks.shape[1] - LENGTH, count)
    drawn = [blocks[block, start : start + LENGTH + 1] for block, start in zip(chosen, starts, strict=True)]
    return torch.from_numpy(np.stack(drawn).astype(np.int64))


def spread_rows(blocks: Bytes) -> torch.Tensor:
    """`MEASURED` rows or a few more, spread over all blocks, none of which overlap."""
    width = LENGTH + 1
    whole = blocks[:, : blocks.shape[1] // width * width].reshape(-1, width)
    return torch.from_numpy(whole[:: max(1, len(whole) // MEASURED)].astype(np.int64))


def pretrained(kinds: Sequence[Bytes], steps: int, seed: int = 0, batch: int = 16) -> dict[str, torch.Tensor]:
    """The base model: `steps` steps of AdamW over all kinds alike; the same bits each time on one machine."""
    base, random = fresh(seed), np.random.default_rng(seed)
    for weight in base.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(base.values(), lr=3e-3, weight_decay=0.01)
    for _ in range(steps):
        tokens = torch.cat([rows(blocks, batch // len(kinds), random) for blocks in kinds])
        optimizer.zero_grad()
        loss_of(tokens, base, {}, 0.0).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: weight.detach() for name, weight in base.items()}


def train(
    base: Weights, adapter: Mapping[str, Float32], names: frozenset[str], blocks: Bytes, *, scale: float, steps: int,
    batch: int, learning_rate: float, seed: int,
) -> dict[str, Float32]:  # fmt: skip
    """`adapter` after `steps` steps of AdamW on one node's blocks; only tensors in `names` change."""
    weights = {name: torch.tensor(value) for name, value in adapter.items()}
    for name in names:
        weights[name].requires_grad_(True)
    random = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW([weights[name] for name in sorted(names)], lr=learning_rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(rows(blocks, batch, random), base, weights, scale).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def measure(base: Weights, adapter: Mapping[str, Float32], kinds: Sequence[Bytes], scale: float) -> float:
    """Mean over kinds of the held-out loss in nats a byte."""
    weights = {name: torch.tensor(value) for name, value in adapter.items()}
    with torch.inference_mode():
        losses = [
            float(np.mean([float(loss_of(part, base, weights, scale)) for part in spread_rows(blocks).split(64)]))
            for blocks in kinds
        ]
    return sum(losses) / len(losses)


def digest(base: Weights) -> str:
    """SHA-256 of the parameters in order of name, in hex."""
    hashed = hashlib.sha256()
    for name in sorted(base):
        hashed.update(name.encode() + base[name].numpy().tobytes())
    return hashed.hexdigest()
