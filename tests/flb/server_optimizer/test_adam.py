# SPDX-License-Identifier: Apache-2.0
"""FedAdam as the paper has it: no bias correction, and none that is off by one."""

import numpy as np
import pytest

from flb.server_optimizer.constants import Constants
from tests.optimizing import steps

pytestmark = pytest.mark.unit

SIGNED = np.array([1.0, -1.0, 2.0**-20, -3.0])


def test_step__tau_to_zero__first_step_is_the_rate_times_the_sign() -> None:
    (first,), _ = steps("adam", [SIGNED], Constants(0.1, 0.9, 0.99, 0.0))
    assert first == pytest.approx(0.1 * np.sign(SIGNED), rel=2e-15)
    assert np.all(np.abs(np.abs(first) / 0.1 - 0.7425) > 0.25), "as where the correction counts from the second step"


def test_step__dyadic_constants__first_step_is_exact() -> None:
    (first,), _ = steps("adam", [SIGNED], Constants(0.5, 0.5, 0.75, 0.0))
    assert np.array_equal(first, 0.5 * np.sign(SIGNED))


def test_step__constant_mean__moments_are_the_geometric_series() -> None:
    """m_t = (1 - β₁^t)·D and v_t = (1 - β₂^t)·D² + β₂^t·τ²."""
    _, moments = steps("adam", [np.full(1, 2.0)] * 4, Constants(0.1, 0.5, 0.75, 0.5))
    assert moments.tolist() == [[2.0 * (1 - 0.5**4), 4.0 * (1 - 0.75**4) + 0.25 * 0.75**4]]


def test_step__second_moment__is_of_the_mean_and_not_of_the_first_moment() -> None:
    _, moments = steps("adam", [np.ones(1), -np.ones(1)], Constants(0.1, 0.5, 0.5, 0.0))
    assert moments.tolist() == [[-0.25, 0.75]]


def test_step__tau_far_above_the_means__is_sgd_with_momentum_at_rate_over_tau() -> None:
    """The warning of docs/aggregation.md as a number: η = 0.1 and τ = 1e-3 make means of 1e-6 a hundred times larger."""
    (first,), _ = steps("adam", [np.full(1, 1e-6)], Constants(0.1, 0.9, 0.99, 1e-3))
    assert first[0] / (0.1 * 1e-6) == pytest.approx(0.1 / 1e-3 / 2, rel=0.01)
