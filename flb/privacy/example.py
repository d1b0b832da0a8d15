# SPDX-License-Identifier: Apache-2.0
"""Privacy of single examples: DP-SGD on each node (Abadi et al., arXiv 1607.00133), so that nobody has to be trusted.

In every optimizer step each example takes part with probability q = batch size / examples, in secret; its gradient is
clipped to C, the sum of them gets Gaussian noise of z·C and is divided by the batch size that is expected. Neighbours differ
in one example that is there or not, so the sum moves by C at most. The number of examples is public. All optimizer steps
of all rounds compose; what a node sends is a function of noised sums alone.

The sum is one of ring integers, clipped exactly and noised by `flb.privacy.discrete_gaussian`: no float between.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flb.capabilities import PrivacyCapabilities
from flb.delta import Float32, Int64, check_bound, to_ring
from flb.errors import NotFinite, Refused, ValueTooLarge
from flb.privacy.clip import clip_factor, ring_norm
from flb.privacy.discrete_gaussian import Noise, aes_ctr, stage_key, standard_deviation
from flb.spec_sections import PrivacySpec, TrainingSpec

CAPABILITIES = PrivacyCapabilities()

CLIP_NORM = 1.0
"""Where the settings say `auto`: AdamW takes the scale out, so C need only be near the norms of usual gradients."""
LEAST_MULTIPLIER = 0.5
"""Noise multiplier of a run without a budget, and the least of one with a budget."""
FRACTION_BITS = 32
LARGEST_VALUE = 2.0**20
"""A gradient beyond it counts as zeros, as one that is not finite does."""

Calibrate = Callable[[float, int, float, float, float], float]
"""(sampling rate, releases, ε, δ, least multiplier) -> the multiplier, rounded up."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What one node does in one round of a run: `releases` optimizer steps on samples of `examples`, of which `batch` are
    expected. Every number is public."""

    examples: int
    batch: int
    releases: int
    clip_norm: float
    noise_multiplier: float

    @property
    def rate(self) -> float:
        """Probability with which an example takes part in one step; at most 1."""
        return min(1.0, self.batch / self.examples)


@dataclass(frozen=True, slots=True)
class Secret:
    """One round's: what is done, and the key that samples, noise and dropout follow from. It never leaves the device."""

    steps: Steps
    key: bytes


def plan(clip_norm: float | None, epsilon: float | None, delta: float) -> PrivacySpec:
    """The section of a run: its noise multiplier is the least, and each node raises its own to what the budget needs for
    its number of examples."""
    return PrivacySpec(
        "example", CLIP_NORM if clip_norm is None else clip_norm, LEAST_MULTIPLIER, epsilon or 0.0, delta
    )


def steps_of(
    privacy: PrivacySpec, training: TrainingSpec, rounds: int, examples: int, planned: int, calibrate: Calibrate
) -> Steps:
    """What a node with so many examples does in each round, of `planned` optimizer steps each.

    Raises Refused for a δ of 1/examples or more, which would allow to publish an example, and what `calibrate` raises.
    """
    if examples < 1 or privacy.delta * examples >= 1:
        raise Refused(
            f"a delta of {privacy.delta:g} is no protection for one of {examples} examples",
            "ask the operator for a delta well below one over the examples of a node",
        )
    multiplier = privacy.noise_multiplier
    if privacy.epsilon:
        rate = min(1.0, training.batch_size / examples)
        multiplier = max(multiplier, calibrate(rate, rounds * planned, privacy.epsilon, privacy.delta, multiplier))
    return Steps(examples, training.batch_size, planned, privacy.clip_norm, multiplier)


def step_key(key: bytes, step: int, purpose: bytes) -> bytes:
    """32 bytes for one purpose in optimizer step `step` of the round whose key this is."""
    return hashlib.sha256(b"flb example " + purpose + step.to_bytes(4, "big") + key).digest()


def sample(steps: Steps, key: bytes) -> NDArray[np.intp]:
    """Who takes part: each example on its own, with probability ⌊2^64 · rate⌋ / 2^64, by AES-128-CTR. May be nobody."""
    if steps.batch >= steps.examples:
        return np.arange(steps.examples)
    words = np.frombuffer(aes_ctr(stage_key(key, 0, b"poisson"))(8 * steps.examples), dtype="<u8")
    return np.flatnonzero(words < np.uint64((steps.batch << 64) // steps.examples))


class GradientSum:
    """The sum of clipped gradients of one optimizer step, in units of 2^-32."""

    def __init__(self, size: int, clip_norm: float) -> None:
        self._bound = ring_norm(clip_norm, FRACTION_BITS)
        self._total: Int64 = np.zeros(size, dtype=np.int64)
        self._one: Int64 = np.empty(size, dtype=np.int64)

    def add(self, gradient: Float32) -> None:
        """Take the gradient of one example, flat: it moves the sum by at most C, exactly, whatever it is."""
        try:
            check_bound(gradient, LARGEST_VALUE, "of a gradient")
        except (NotFinite, ValueTooLarge):
            return
        values = to_ring(gradient, FRACTION_BITS, self._one)
        clip_factor(lambda: [values], self._bound).apply(values)
        self._total += values

    def noised(self, steps: Steps, key: bytes) -> Float32:
        """The sum with noise, over the expected batch. Only once: `key` is for this step alone."""
        Noise(standard_deviation(steps.noise_multiplier, steps.clip_norm, FRACTION_BITS), key).add(self._total)
        return (self._total * (2.0**-FRACTION_BITS / steps.batch)).astype(np.float32)
