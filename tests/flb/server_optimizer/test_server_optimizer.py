# SPDX-License-Identifier: Apache-2.0
"""What holds for every server optimizer: the formula bit for bit, the table, zero means, scale, saved state."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.server_optimizer import OPTIMIZERS, PART, apply
from flb.server_optimizer.constants import Constants
from tests.optimizing import ADAPTIVE, NAMES, slow_steps, started, steps

pytestmark = pytest.mark.unit

C = Constants(0.3, 0.9, 0.99, 2.0**-13)
VALUES = st.floats(-4.0, 4.0, width=32)


@pytest.mark.parametrize("name", NAMES)
@given(
    means=st.lists(VALUES, min_size=1, max_size=6),
    rate=st.sampled_from([1.0, 0.7, 1e-3]),
    tau=st.sampled_from([1e-3, 2.0**-32]),
)
def test_step__any_means__is_the_formula_bit_for_bit(name: str, means: list[float], rate: float, tau: float) -> None:
    constants = C._replace(learning_rate=rate, tau=tau)
    made, _ = steps(name, [np.full(3, mean) for mean in means], constants)
    wanted = slow_steps(name, means, constants)
    assert [float(step[1]).hex() for step in np.add(made, 0.0)] == [(step + 0.0).hex() for step in wanted]


@pytest.mark.parametrize("name", NAMES)
def test_step__any_cut_into_blocks__gives_the_same_bits(name: str) -> None:
    random = np.random.default_rng(1)
    means = [random.standard_normal(1000) * 1e-3 for _ in range(3)]
    whole, moments = steps(name, means, C)
    left, left_moments = steps(name, [mean[:333] for mean in means], C)
    right, right_moments = steps(name, [mean[333:] for mean in means], C)
    assert np.concatenate([left[-1], right[-1]]).tobytes() == whole[-1].tobytes()
    assert np.concatenate([left_moments, right_moments]).tobytes() == moments.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_apply__more_than_one_part__is_the_step_of_each_element(name: str) -> None:
    mean, wanted = np.random.default_rng(4).standard_normal(2 * PART + 5), started(name, 2 * PART + 5, C.tau)
    moments = wanted.copy()
    whole = OPTIMIZERS[name].step(mean, wanted, C)
    assert apply(OPTIMIZERS[name], mean, moments, C).tobytes() == whole.tobytes()
    assert moments.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_step__mean__stays_as_it_is(name: str) -> None:
    mean = np.array([1.0, -2.0, 0.0])
    OPTIMIZERS[name].step(mean, started(name, 3, C.tau), C)
    assert np.array_equal(mean, [1.0, -2.0, 0.0])


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_step__rate_one_and_no_momentum__is_fedavg_bit_for_bit(name: str) -> None:
    random = np.random.default_rng(2)
    means = [random.standard_normal(500) * 10.0 ** random.integers(-9, 1, 500) for _ in range(4)]
    means[1][:100] = 0.0
    made, _ = steps(name, means, Constants(1.0, momentum=0.0))
    assert [step.tobytes() for step in made] == [mean.tobytes() for mean in means]


@pytest.mark.parametrize("name", NAMES)
def test_step__zero_mean__moves_by_momentum_only(name: str) -> None:
    zero, one = np.zeros(1), np.ones(1)
    assert not steps(name, [zero, zero], C)[0][1].any(), "nothing moved before"
    after = steps(name, [one, zero], C)[0][1]
    assert after.any() == (name not in ("sgd", "adagrad"))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_step__smallest_tau_and_zero_mean__is_zero_and_no_nan(name: str) -> None:
    made, moments = steps(name, [np.zeros(2), np.zeros(2)], C._replace(tau=2.0**-40))
    assert not np.any(made) and np.all(np.isfinite(moments))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_step__means_and_tau_scaled_alike__gives_the_same_steps(name: str) -> None:
    """A scale of 2^-9 is exact in every operation, so the invariance is too."""
    random = np.random.default_rng(3)
    means = [random.standard_normal(100) for _ in range(5)]
    made, _ = steps(name, means, C)
    small, _ = steps(name, [mean * 2.0**-9 for mean in means], C._replace(tau=C.tau * 2.0**-9))
    assert [step.tobytes() for step in made] == [step.tobytes() for step in small]


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov"])
def test_step__means_scaled__scales_the_steps(name: str) -> None:
    means = [np.random.default_rng(seed).standard_normal(100) for seed in range(4)]
    made, _ = steps(name, means, C)
    small, _ = steps(name, [mean * 2.0**-9 for mean in means], C)
    assert [(step * 2.0**-9).tobytes() for step in made] == [step.tobytes() for step in small]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [1, 3])
def test_step__moments_saved_and_read_back__goes_on_to_the_same_bits(name: str, cut: int) -> None:
    means = [np.random.default_rng(seed).standard_normal(50) * 1e-3 for seed in range(5)]
    whole, last = steps(name, means, C)
    _, held = steps(name, means[:cut], C)
    read = np.frombuffer(bytearray(held.astype("<f8").tobytes()), dtype="<f8").reshape(held.shape)
    again = [OPTIMIZERS[name].step(mean, read, C) for mean in means[cut:]]
    assert [step.tobytes() for step in again] == [step.tobytes() for step in whole[cut:]]
    assert read.tobytes() == last.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_start__second_moment__is_tau_squared_and_the_others_zero(name: str) -> None:
    optimizer = OPTIMIZERS[name]
    row = ([0.0] * optimizer.moments)[: optimizer.moments - optimizer.adaptive] + [1e-6] * optimizer.adaptive
    assert started(name, 4, 1e-3) == pytest.approx(np.array([row] * 4).reshape(4, optimizer.moments))
    assert dataclasses.is_dataclass(optimizer)
