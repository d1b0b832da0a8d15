# SPDX-License-Identifier: Apache-2.0
"""What a run's privacy comes to, for the demo's result, the model card, and people; and the demo's settings of it."""

import math
from pathlib import Path
from typing import Any

from flb.privacy import central, local
from flb.privacy.feasibility import central_ratio, local_ratio
from flb.spec import RunSpec, decode

MECHANISMS = ("none", "local", "central-fixed", "central-adaptive")
UNIT = "one node's updates of the whole run, replaced by others"
CENTRAL_UNIT = "one node's updates of the whole run, left out"


def settings(mechanism: str, nodes: int) -> dict[str, Any]:
    """The sections of config.yaml that a mechanism adds, with its defaults, for a run of so many nodes."""
    if mechanism.startswith("central-"):
        return {"privacy": {"central": mechanism.removeprefix("central-"), "denominator": nodes}}
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
    return (
        f"{made['mechanism']} noise of {made['sigma']:.3g} on {what} clipped to {made['clip_norm']:.3g}: {bound} for "
        f"{made['unit']}; the noise of a round's mean is {made['noise_to_signal']:.3g} times the clip norm"
    )
