# SPDX-License-Identifier: Apache-2.0
"""DP-SGD's arithmetic: secret samples, a sum that one example moves by C at most, noise of zC, numbers of a node."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.privacy.example import GradientSum, Steps, plan, sample, step_key, steps_of
from flb.spec import PrivacySpec, TrainingSpec

pytestmark = pytest.mark.unit

KEY = bytes(range(32))
TRAINING = TrainingSpec(local_steps=6, batch_size=4, learning_rate=5e-3, max_length=96, seed=0)
QUIET = Steps(20, 4, 6, 1.0, 2.0**-18)
"""Noise of 2^-18: what the sum is shows through."""


def total(gradients: list[np.ndarray], steps: Steps = QUIET, key: bytes = KEY) -> np.ndarray:
    made = GradientSum(gradients[0].size, steps.clip_norm)
    for gradient in gradients:
        made.add(gradient)
    return made.noised(steps, key).astype(np.float64) * steps.batch


@given(st.lists(st.floats(width=32), min_size=8, max_size=8))
def test_sum__any_further_example__moves_it_by_at_most_the_clip_norm(raw: list[float]) -> None:
    others = [np.linspace(-1, 1, 8, dtype=np.float32), np.full(8, 0.01, dtype=np.float32)]
    moved = total([*others, np.array(raw, dtype=np.float32)]) - total(others)
    assert math.sqrt(math.fsum(moved**2)) <= 1.0 + 1e-6  # the cast to float32 comes after the noise


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0**21])
def test_sum__a_gradient_that_no_ring_holds__adds_nothing(bad: float) -> None:
    others = [np.full(4, 0.1, dtype=np.float32)]
    assert np.array_equal(total([*others, np.array([0, bad, 0, 0], dtype=np.float32)]), total(others))


def test_sum__short_gradients__is_their_sum() -> None:
    gradient = np.array([0.25, -0.5], dtype=np.float32)
    assert np.allclose(total([gradient] * 3), 3 * gradient, atol=1e-4)


def test_noised__an_empty_sample__is_noise_of_the_stated_deviation() -> None:
    steps = Steps(20, 4, 6, 3.0, 0.5)
    made = GradientSum(20000, steps.clip_norm).noised(steps, KEY).astype(np.float64) * steps.batch
    assert float(made.std()) == pytest.approx(1.5, rel=0.03) and abs(float(made.mean())) < 0.05


def test_sample__many_steps__takes_each_with_the_rate_and_no_fixed_number() -> None:
    steps = Steps(50, 10, 6, 1.0, 1.0)
    drawn = [sample(steps, step_key(KEY, step, b"sample")) for step in range(2000)]
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    assert counts.min() > 400 - 5 * 18 and counts.max() < 400 + 5 * 18
    sizes = np.array([len(one) for one in drawn])
    assert len(set(sizes.tolist())) > 5 and float(sizes.var()) == pytest.approx(50 * 0.2 * 0.8, rel=0.15)


def test_sample__another_example__leaves_the_others_as_they_were() -> None:
    """The sampling of one example is independent of how many follow, at one rate."""
    few, more = (sample(Steps(count, count // 5, 6, 1.0, 1.0), KEY) for count in (50, 100))
    assert few.tolist() == [index for index in more.tolist() if index < 50]


def test_sample__a_batch_of_everybody__is_everybody() -> None:
    assert sample(Steps(3, 4, 6, 1.0, 1.0), KEY).tolist() == [0, 1, 2] and Steps(3, 4, 6, 1.0, 1.0).rate == 1.0


def test_step_key__step_and_purpose__give_keys_of_their_own() -> None:
    made = {step_key(KEY, step, purpose) for step in range(3) for purpose in (b"sample", b"noise")}
    assert len(made) == 6 and all(len(key) == 32 for key in made)


def test_steps_of__a_budget__raises_the_noise_to_what_the_node_needs() -> None:
    asked: list[tuple[float, ...]] = []

    def calibrate(*numbers: float) -> float:
        asked.append(numbers)
        return 1.25

    made = steps_of(plan(None, 8.0, 1e-5), TRAINING, 3, 20, 6, calibrate)
    assert made == Steps(20, 4, 6, 1.0, 1.25) and asked == [(0.2, 18, 8.0, 1e-5, 0.5)]


def test_steps_of__no_budget__has_the_least_noise() -> None:
    made = steps_of(plan(2.0, None, 1e-5), TRAINING, 3, 20, 6, lambda *_: 99.0)
    assert (made.noise_multiplier, made.clip_norm) == (0.5, 2.0)


@pytest.mark.parametrize(("delta", "examples"), [(0.05, 20), (1e-5, 0), (1e-2, 100)])
def test_steps_of__a_delta_that_gives_an_example_away__is_refused(delta: float, examples: int) -> None:
    with pytest.raises(Refused, match="no protection"):
        steps_of(PrivacySpec("example", 1.0, 1.0, 8.0, delta), TRAINING, 3, examples, 6, lambda *_: 1.0)
