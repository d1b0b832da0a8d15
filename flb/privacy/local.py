# SPDX-License-Identifier: Apache-2.0
"""Local privacy: each node clips its own update and adds its own noise, so that nobody has to be trusted.

The unit is a node's whole update of one step, and neighbours differ in that update altogether: replacing one clipped
vector by another moves it by up to 2C. So a release has μ = 2C/σ, and all rounds of a run compose (docs/privacy.md).
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from flb.capabilities import PrivacyCapabilities
from flb.errors import Refused
from flb.privacy.accountant import MARGIN, epsilon_of_rounds, noise_multiplier_for
from flb.privacy.clip import ring_norm
from flb.privacy.discrete_gaussian import stages_of, standard_deviation
from flb.spec_sections import PrivacySpec, RingSpec, RunSpec, TrainingSpec
from flb.types import TensorSpec

CAPABILITIES = PrivacyCapabilities(local=True)

SENSITIVITY = 2
"""In clip norms: what the replacement of one update by another changes at most."""
WEAK = 0.001
"""Noise multiplier of `noise: weak`. It hides low-order digits and guarantees nothing worth the name."""
TAIL = 16
"""No value of the noise is above so many deviations (`flb.privacy.discrete_gaussian`)."""
CODEC_ROOM = Fraction(17, 16)
"""The norm that a codec may add to an update: mxint4 rounds noise with an error of at most a quarter of its norm, at a
right angle to it, which makes 1.03."""


def parameters_of(tensors: Iterable[TensorSpec]) -> int:
    """How many values an update has at most."""
    return sum(tensor.size for tensor in tensors)


def auto_clip_norm(training: TrainingSpec, parameters: int) -> float:
    """Peak learning rate · local steps · √P / 4: what updates of the demo measure, and below what Adam can reach."""
    return training.learning_rate * training.local_steps * math.sqrt(parameters) / 4


def plan(
    *, training: TrainingSpec, parameters: int, steps: int, clip_norm: float | None, epsilon: float | None, delta: float
) -> PrivacySpec:
    """The section of a run with local privacy: `clip_norm` None is `auto_clip_norm`, `epsilon` None is weak noise, and
    otherwise the budget for all `steps` together. Raises Refused for numbers that no budget has."""
    norm = auto_clip_norm(training, parameters) if clip_norm is None else clip_norm
    multiplier = WEAK if epsilon is None else SENSITIVITY * noise_multiplier_for(epsilon, delta, steps)
    return PrivacySpec("local", norm, multiplier, epsilon or 0.0, delta)


def sigma(privacy: PrivacySpec, ring: RingSpec) -> Fraction:
    """σ in ring units, exactly."""
    return standard_deviation(privacy.noise_multiplier, privacy.clip_norm, ring.fraction_bits)


def mu(privacy: PrivacySpec) -> float:
    """Sensitivity over deviation of one release."""
    return SENSITIVITY / privacy.noise_multiplier


def epsilon_after(privacy: PrivacySpec, releases: int, delta: float | None = None) -> float:
    """ε of so many releases of one node, at the spec's δ or another."""
    return epsilon_of_rounds(
        noise_multiplier=privacy.noise_multiplier / SENSITIVITY, sampling_rate=1.0, rounds=releases,
        delta=delta or privacy.delta,
    )  # fmt: skip


def room_for_values(privacy: PrivacySpec, ring: RingSpec) -> int:
    """How large a ring value may be before noise, so that it is within the value bound after it; may be negative."""
    return (ring.value_bound << ring.fraction_bits) - math.ceil(TAIL * sigma(privacy, ring))


def least_norm_bound(privacy: PrivacySpec, parameters: int) -> int:
    """The least power of two above the norm of a clipped, noised and encoded update: 2C + σ(√P + 6), with room for the
    codec. The norm of the noise is above σ(√P + 6) with a probability of at most e^-18."""
    reach = 2 * privacy.clip_norm + privacy.sigma * (math.sqrt(parameters) + 6)
    return 1 << max(0, math.ceil(math.log2(float(CODEC_ROOM) * reach)))


def least_value_bound(privacy: PrivacySpec) -> int:
    """The least power of two that leaves half of it to the signal, beside the largest noise."""
    return 1 << max(0, math.ceil(math.log2(2 * TAIL * privacy.sigma)))


def widened(ring: RingSpec, privacy: PrivacySpec, parameters: int, fixed_norm: bool) -> RingSpec:
    """The ring with bounds that hold what is sent. The norm bound follows, unless the operator gave one.

    Where the value bound grows, the ring's unit grows with it, down to 8 fraction bits: sums need no more bits than before,
    and a unit stays far below the noise, of which the value bound is at most 64 deviations then.
    """
    values = max(ring.value_bound, least_value_bound(privacy))
    bits = max(min(ring.fraction_bits, 8), ring.fraction_bits - (values // ring.value_bound).bit_length() + 1)
    norm = ring.norm_bound if fixed_norm else least_norm_bound(privacy, parameters)
    return replace(ring, value_bound=values, fraction_bits=bits, norm_bound=norm)


def check(spec: RunSpec) -> None:
    """Refuse a spec whose noise is not what its budget needs, or does not fit its ring. Does nothing for other mechanisms.

    A node checks it too: the operator may have made the spec by hand.
    """
    privacy, ring = spec.privacy, spec.ring
    if privacy.mechanism != "local":
        return
    ring_norm(privacy.clip_norm, ring.fraction_bits)
    stages_of(sigma(privacy, ring))
    least = least_norm_bound(privacy, parameters_of(spec.tensors))
    if ring.norm_bound < least:
        raise Refused(
            f"clipped and noised updates may have a norm of {least}, and the norm bound is {ring.norm_bound}",
            "set run.norm_bound to auto, or lower the clip norm",
        )
    if ring.value_bound < least_value_bound(privacy):
        raise Refused(
            f"the noise needs a value bound of {least_value_bound(privacy)}, and it is {ring.value_bound}",
            "raise run.value_bound, or lower the clip norm",
        )
    if privacy.delta * spec.rounds.min_nodes >= 1:
        raise Refused(
            f"a delta of {privacy.delta:g} lets the guarantee fail for one node in {1 / privacy.delta:.3g}",
            f"choose a delta well below one over the nodes, of which a round has {spec.rounds.min_nodes} at least",
        )
    if privacy.epsilon:
        after = epsilon_after(privacy, spec.rounds.steps)
        if after > privacy.epsilon * (1 + MARGIN):
            raise Refused(
                f"{spec.rounds.steps} rounds with this noise come to epsilon {after:.4g}, and the run promises "
                f"{privacy.epsilon:g}",
                "make the spec with flb chain deploy",
            )
