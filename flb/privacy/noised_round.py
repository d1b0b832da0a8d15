# SPDX-License-Identifier: Apache-2.0
"""What a round's record says of the noise that the aggregator added: how much, never from which seed."""

from dataclasses import dataclass
from typing import Any

from flb.types import Digest


@dataclass(frozen=True, slots=True)
class NoisedRound:
    """The section `noise` of a record. `noised_sum` is the blob that the step follows from; `sigma` is the deviation on each
    value of the sum, in units of an update's values. `epsilon` at `delta` is what the run spent by the end of this round in
    `releases` releases, None where it bounds nothing. `unclipped` is the noised share of updates within `clip_norm`, and
    `next_clip_norm` what the next round clips to; with a fixed clip norm None and the same again."""

    noised_sum: Digest
    clip_norm: float
    sigma: float
    epsilon: float | None
    delta: float
    releases: int
    unclipped: float | None
    next_clip_norm: float


FLOATS = ("clip_norm", "sigma", "delta", "next_clip_norm")
MAYBE = ("epsilon", "unclipped")


def figures(noise: NoisedRound) -> dict[str, float]:
    """What the run spent by the end of the round, for logs and reports; without `epsilon` where that bounds nothing."""
    spent = {"delta": noise.delta, "releases": float(noise.releases)}
    return spent if noise.epsilon is None else {"epsilon": noise.epsilon, **spent}


def to_json(noise: NoisedRound) -> dict[str, Any]:
    """As the record holds it."""
    fields: dict[str, Any] = {name: getattr(noise, name) for name in (*FLOATS, *MAYBE, "releases")}
    return {**fields, "noised_sum": "0x" + noise.noised_sum.hex()}


def from_json(value: Any) -> NoisedRound:
    """The inverse of `to_json`. Raises KeyError, ValueError or TypeError for other JSON."""
    digest, releases = bytes.fromhex(value["noised_sum"][2:]), value["releases"]
    if len(digest) != 32 or type(releases) is not int or releases < 1:
        raise ValueError("not the noise of a round")
    floats = {name: float(value[name]) for name in FLOATS}
    epsilon, unclipped = (None if value[name] is None else float(value[name]) for name in MAYBE)
    return NoisedRound(noised_sum=Digest(digest), releases=releases, epsilon=epsilon, unclipped=unclipped, **floats)
