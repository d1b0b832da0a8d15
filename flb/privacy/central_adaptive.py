# SPDX-License-Identifier: Apache-2.0
"""Central privacy whose clip norm follows a quantile of the update norms (Andrew et al., arXiv 1905.03871).

A round's noise is for the clip norm that was known before it; what the round shows moves that of the next one. The
arithmetic of the move is `flb.privacy.adaptive_clip`.
"""

import hashlib

import numpy as np

from flb.capabilities import PrivacyCapabilities
from flb.privacy.adaptive_clip import BIT_UNITS, next_norm, share_within
from flb.privacy.central import least_clip_norm
from flb.privacy.discrete_gaussian import Noise, standard_deviation
from flb.spec_sections import PrivacySpec, RingSpec

CAPABILITIES = PrivacyCapabilities(central=True)


def noised_share(privacy: PrivacySpec, unclipped: int, counted: int, key: bytes) -> float:
    """b̃ of a round: `unclipped` of the `counted` updates were within the clip norm. `key` is the round's noise key; the
    bit's own follows from it. Raises Refused for noise that has no table."""
    noise = Noise(standard_deviation(privacy.bits_noise, 1.0, BIT_UNITS), bits_key(key))
    drawn = np.zeros(1, dtype=np.int64)
    noise.add(drawn)
    return share_within(unclipped, counted, int(drawn[0]), privacy.denominator)


def bits_key(key: bytes) -> bytes:
    """SHA-256("flb noise bits" ‖ key): no stream of the sum's noise has it."""
    return hashlib.sha256(b"flb noise bits" + key).digest()


def following(privacy: PrivacySpec, ring: RingSpec, clip_norm: float, share: float) -> float:
    """C of the next round from C of this one and b̃. It stays within what the ring can noise and what admission lets in;
    that looks at nothing but b̃."""
    moved = next_norm(clip_norm, share, privacy.quantile, privacy.rate)
    return min(max(moved, least_clip_norm(privacy, ring)), float(ring.norm_bound))
