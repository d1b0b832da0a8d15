# SPDX-License-Identifier: Apache-2.0
"""The settings of the method: what is trained, how updates become one, and how that becomes a step."""

from dataclasses import dataclass, field
from typing import Any, Literal


def setting(default: Any, text: str) -> Any:
    """A field with its comment."""
    if callable(default):
        return field(default_factory=default, metadata={"text": text})
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """The adapter that everybody trains."""

    r: int = setting(8, "rank")
    alpha: int = setting(16, "scale; the adapter counts alpha / r times")
    dropout: float = setting(0.05, "share of inputs that training drops, from 0 to below 1")
    target_modules: str | tuple[str, ...] = setting("all-linear", "all-linear, or a list of module names")
    mode: Literal["factors", "alternate", "freeze_a", "product", "stack"] = setting(
        "factors", "factors (A and B averaged), alternate (in turn), freeze_a (B alone), product (B·A) or stack"
    )
    rslora: bool = setting(False, "scale by alpha / sqrt(r) instead of alpha / r")
    ranks: tuple[int, ...] | None = setting(None, "product, stack: ranks that nodes may train at; null: r alone")
    energy: float = setting(1.0, "product: keep the least rank that holds this share of the squared singular values")
    align: bool = setting(False, "product: turn the factors towards the adapter before, as momentum needs")
    residual_rank: int = setting(0, "factors: frozen ranks that carry what averaging A and B loses; 0 is off")
    max_rank: int = setting(0, "stack: largest rank that the adapter may grow to")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Local training between two averages."""

    objective: Literal["sft", "dpo"] = setting("sft", "sft (completions) or dpo (prompt, chosen, rejected)")
    local_steps: int = setting(10, "optimizer steps a round; with local_epochs the most of them")
    local_epochs: int = setting(0, "passes over a node's own examples a round; 0: local_steps decides alone")
    batch_size: int = setting(4, "examples a step")
    learning_rate: float = setting(1e-3, "peak learning rate of AdamW")
    lr_schedule: Literal["constant", "linear", "cosine"] = setting(
        "constant", "constant, linear or cosine (both fall to 0), over the whole run and not a round"
    )
    warmup_steps: int = setting(0, "optimizer steps of the whole run in which the learning rate rises to its peak")
    fedprox_mu: float = setting(0.0, "weight of FedProx's pull towards the round's adapter; 0 is off")
    dpo_beta: float = setting(0.1, "beta of DPO; the reference is the base model without adapter")
    optimizer_state: Literal["reset", "keep"] = setting(
        "reset", "AdamW's moments at a round's start: reset, or keep (on the node's disk, over restarts too)"
    )
    max_length: int = setting(512, "tokens of an example; longer ones are cut")
    packing: bool = setting(False, "on this device alone: short examples share rows of max_length tokens, kept apart")
    seed: int = setting(0, "of adapter 0, data order and dropout")
    gradient_checkpointing: bool = setting(
        False, "on this device alone: compute activations twice instead of keeping them; less memory, more time"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregationConfig:
    """How the updates of a round become one."""

    rule: Literal[
        "mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound"
    ] = setting("mean", "mean, or a robust rule: see docs/aggregation.md")
    byzantine: int = setting(0, "how many of a round's updates may be hostile; robust rules need it")
    neighbours: int = setting(0, "krum, nearest_neighbours: updates that are compared; 0: as published")
    selected: int = setting(0, "multi_krum: updates that are averaged; 0: all but `byzantine`")
    iterations: int = setting(0, "geometric_median, centered_clipping: passes; 0: the rule's own")
    radius: float = setting(0.0, "centered_clipping, norm_bound: radius in medians; 0: the rule's own")
    mixing: Literal["none", "nearest_neighbours", "bucketing"] = setting("none", "what comes before the rule")
    bucket: int = setting(0, "bucketing: updates in a bucket")
    weights: Literal["examples", "equal"] = setting("examples", "examples (capped) or equal; robust rules need equal")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptimizerConfig:
    """How the mean update becomes a step."""

    name: Literal["sgd", "momentum", "nesterov", "adagrad", "adam", "yogi"] = setting(
        "sgd", "sgd (with a learning rate of 1 it is FedAvg), momentum, nesterov, adagrad, adam or yogi"
    )
    learning_rate: float = setting(
        1.0, "multiplies the step; adagrad, adam, yogi: about what a weight moves by in a round, so 1e-3 or less"
    )
    momentum: float = setting(0.9, "beta 1 of all but sgd and adagrad")
    beta2: float = setting(0.99, "beta 2 of adam and yogi")
    tau: float = setting(0.0, "adagrad, adam, yogi: added to the root; 0: tau_scale times the first mean's size")
    tau_scale: float = setting(0.1, "see tau")
