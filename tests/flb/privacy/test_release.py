# SPDX-License-Identifier: Apache-2.0
"""A release: clipped exactly, noised once, and something whatever the training gave."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.delta import BLOCK, Float32
from flb.privacy.discrete_gaussian import Noise
from flb.privacy.release import Release
from flb.spec import PrivacySpec, RingSpec

pytestmark = pytest.mark.unit

RING = RingSpec(32, 4, 64, 16)
KEY = bytes(range(32))
UNIT = 2.0**-32


def released(
    tensors: list[Float32], clip_norm: float = 1.0, multiplier: float = 0.001, key: bytes = KEY
) -> list[Float32]:
    privacy = PrivacySpec("local", clip_norm, multiplier, 0.0, 1e-5)
    release = Release(lambda: tensors, privacy, RING, key)
    return [release.noised(tensor) for tensor in tensors]


def noise_of(count: int, clip_norm: float = 1.0, multiplier: float = 0.001) -> np.ndarray:
    values = np.zeros(count, dtype=np.int64)
    Noise(Fraction(multiplier) * Fraction(clip_norm) * (1 << 32), KEY).add(values)
    return values


def test_noised__a_short_update__is_itself_and_the_noise() -> None:
    update = np.linspace(-0.01, 0.01, 3 * BLOCK // 2, dtype=np.float32).reshape(3, -1)
    (out,) = released([update], clip_norm=100.0, multiplier=0.0001)
    exact = np.rint(update.reshape(-1).astype(np.float64) / UNIT) + noise_of(update.size, 100.0, 0.0001)
    assert out.dtype == np.float32 and np.array_equal(out, (exact * UNIT).astype(np.float32))


@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=60), st.integers(1, 59))
def test_noised__any_update__is_within_the_clip_norm_but_for_the_noise(raw: list[float], cut: int) -> None:
    values = np.array(raw, dtype=np.float32)
    parts = [part for part in (values[:cut], values[cut:]) if part.size]
    out = np.concatenate(released(parts, multiplier=2.0**-10)).astype(np.float64)
    signal = out - noise_of(values.size, multiplier=2.0**-10) * UNIT
    assert float((signal**2).sum()) ** 0.5 <= 1.0 + 1e-6  # the last cast to float32 is after the noise


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3.99, 1e30])
def test_noised__an_update_that_no_ring_holds__is_released_as_zeros_with_noise(bad: float) -> None:
    update = np.array([0.5, bad, 0.25], dtype=np.float32)
    privacy = PrivacySpec("local", 1.0, 0.001, 0.0, 1e-5)
    release = Release(lambda: [update], privacy, RING, KEY)
    assert "of the update" in release.dropped
    assert np.array_equal(release.noised(update), (noise_of(3) * UNIT).astype(np.float32))


def test_noised__zeros__are_noise() -> None:
    assert np.array_equal(released([np.zeros(5, dtype=np.float32)])[0], (noise_of(5) * UNIT).astype(np.float32))


def test_noised__same_key__gives_the_same_bytes_and_another_key_others() -> None:
    update = np.full(100, 0.01, dtype=np.float32)
    one, again, other = (released([update], key=key)[0] for key in (KEY, KEY, bytes(32)))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_noised__neighbouring_updates_under_one_key__differ_by_at_most_twice_the_norm() -> None:
    """The sensitivity that the accountant is told."""
    one, other = np.full(100, 3.0, dtype=np.float32), np.full(100, -3.0, dtype=np.float32)
    apart = released([one])[0].astype(np.float64) - released([other])[0].astype(np.float64)
    assert 1.99 < float((apart**2).sum()) ** 0.5 <= 2.0 + 1e-6
