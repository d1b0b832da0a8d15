# SPDX-License-Identifier: Apache-2.0
"""What a run's privacy comes to, for the demo's result, the model card, and people; and the demo's settings of it."""

import math
from pathlib import Path
from typing import Any

from flb.privacy import central, local
from flb.privacy.feasibility import central_ratio, local_ratio
from flb.spec import RunSpec, decode

MECHANISMS = ("none", "local", "central-fixed", "central-adaptive", "example")
UNIT = "one node's updates of the whole run, replaced by others"
CENTRAL_UNIT = "one node's updates of the whole run, left out"
UNIT_OF_EXAMPLE = "one example of one node, there or not"
DEMO_EPSILON = 8.0
"""The budget of single examples in the demo."""


def settings(mechanism: str, nodes: int) -> dict[str, Any]:
    """The sections of config.yaml that a mechanism adds, for a run of so many nodes: its defaults, and a budget for single
    examples."""
    if mechanism.startswith("central-"):
        return {"privacy": {"central": mechanism.removeprefix("central-"), "denominator": nodes}}
    if mechanism == "example":
        return {"privacy": {"example": True}, "client": {"target_epsilon": DEMO_EPSILON}}
    return {"client": {"local_dp": True}} if mechanism == "local" else {}


def run_settings(mechanism: str) -> dict[str, Any]:
    """What a mechanism changes in the section `run` of the demo, where everybody may read updates otherwise."""
    central = mechanism.startswith("central-")
    return {"audit": "off", "aggregation": {"weights": "equal"}} if central else {"audit": "public"}


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
    parameters, sigma, unit = local.parameters_of(spec.tensors), privacy.sigma, UNIT
    if privacy.central:
        multiplier, unit = central.split_of(privacy).of_sum, CENTRAL_UNIT
        epsilon, sigma = central.epsilon_after(privacy, rounds), multiplier * privacy.clip_norm
        ratio = central_ratio(multiplier, parameters, privacy.denominator)
    elif privacy.mechanism == "example":
        epsilon, unit = privacy.epsilon or math.inf, UNIT_OF_EXAMPLE
        ratio = privacy.noise_multiplier * math.sqrt(parameters) / spec.training.batch_size
    else:
        epsilon = local.epsilon_after(privacy, rounds)
        ratio = local_ratio(privacy.noise_multiplier, parameters, nodes)
    values = (epsilon if epsilon < math.inf else None, privacy.delta, unit, sigma, privacy.clip_norm, ratio)
    return {"mechanism": privacy.mechanism.replace("_", "-"), **dict(zip(names, values, strict=True))}


def in_words(made: dict[str, Any]) -> str:
    """The same for people."""
    if made["mechanism"] == "none":
        return "none; no noise was added"
    what = "the sum of updates" if made["unit"] == CENTRAL_UNIT else "updates"
    bound = "nothing" if made["epsilon"] is None else f"epsilon {made['epsilon']:,.4g} at delta {made['delta']:g}"
    if made["mechanism"] == "example":
        return (
            f"noise of at least {made['sigma']:.3g} on the sum of gradients clipped to {made['clip_norm']:.3g}: {bound} for "
            f"{made['unit']}; the noise of a step's mean is at least {made['noise_to_signal']:.3g} times the clip norm"
        )
    return (
        f"{made['mechanism']} noise of {made['sigma']:.3g} on {what} clipped to {made['clip_norm']:.3g}: {bound} for "
        f"{made['unit']}; the noise of a round's mean is {made['noise_to_signal']:.3g} times the clip norm"
    )
