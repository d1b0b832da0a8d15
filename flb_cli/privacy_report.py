# SPDX-License-Identifier: Apache-2.0
"""What a run's privacy comes to, for the demo's result, the model card, and people; and the demo's settings of it."""

import math
from pathlib import Path
from typing import Any

from flb.privacy import local
from flb.privacy.feasibility import local_ratio
from flb.spec import RunSpec, decode

MECHANISMS = ("none", "local", "example")
UNIT = "one node's updates of the whole run, replaced by others"
UNIT_OF_EXAMPLE = "one example of one node, there or not"
DEMO_EPSILON = 8.0
"""The budget of single examples in the demo."""


def settings(mechanism: str) -> dict[str, Any]:
    """The sections of config.yaml that a mechanism adds: local privacy with its defaults, a budget for single examples."""
    if mechanism == "example":
        return {"privacy": {"example": True}, "client": {"target_epsilon": DEMO_EPSILON}}
    return {"client": {"local_dp": True}} if mechanism == "local" else {}


def result(folder: Path, nodes: int, rounds: int) -> dict[str, Any]:
    """The JSON of a demo whose aggregator works in `folder`, after `rounds` sealed rounds of `nodes` nodes."""
    return told(decode((folder / "spec.json").read_bytes()), nodes, rounds)


def told(spec: RunSpec, nodes: int, rounds: int) -> dict[str, Any]:
    """Mechanism, ε at δ for the unit, σ and C in units of the update's values, and noise over signal of a round's mean.

    With privacy of examples ε is the budget, which every node keeps to with noise of its own, at least σ on the sum of a
    step's clipped gradients; None without a budget: each node's status tells what it spent.
    Without a mechanism all but its name is None; ε is None too where the noise bounds nothing."""
    privacy = spec.privacy
    names = ("epsilon", "delta", "unit", "sigma", "clip_norm", "noise_to_signal")
    if privacy.mechanism == "none":
        return {"mechanism": "none", **dict.fromkeys(names)}
    if privacy.mechanism == "example":
        ratio = privacy.noise_multiplier * math.sqrt(local.parameters_of(spec.tensors)) / spec.training.batch_size
        bounds = (privacy.epsilon or None, privacy.delta, UNIT_OF_EXAMPLE, privacy.sigma, privacy.clip_norm, ratio)
        return {"mechanism": "example", **dict(zip(names, bounds, strict=True))}
    epsilon = local.epsilon_after(privacy, rounds)
    ratio = local_ratio(privacy.noise_multiplier, local.parameters_of(spec.tensors), nodes)
    values = (epsilon if epsilon < math.inf else None, privacy.delta, UNIT, privacy.sigma, privacy.clip_norm, ratio)
    return {"mechanism": privacy.mechanism, **dict(zip(names, values, strict=True))}


def in_words(made: dict[str, Any]) -> str:
    """The same for people."""
    if made["mechanism"] == "none":
        return "none; no noise was added"
    bound = "nothing" if made["epsilon"] is None else f"epsilon {made['epsilon']:,.4g} at delta {made['delta']:g}"
    if made["mechanism"] == "example":
        return (
            f"noise of at least {made['sigma']:.3g} on the sum of gradients clipped to {made['clip_norm']:.3g}: {bound} for "
            f"{made['unit']}; the noise of a step's mean is at least {made['noise_to_signal']:.3g} times the clip norm"
        )
    return (
        f"{made['mechanism']} noise of {made['sigma']:.3g} on updates clipped to {made['clip_norm']:.3g}: {bound} for "
        f"{made['unit']}; the noise of a round's mean is {made['noise_to_signal']:.3g} times the clip norm"
    )
