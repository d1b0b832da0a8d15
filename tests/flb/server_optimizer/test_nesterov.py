# SPDX-License-Identifier: Apache-2.0
"""DiLoCo's outer optimizer against its closed form."""

import numpy as np
import pytest

from flb.server_optimizer.constants import Constants
from tests.optimizing import steps

pytestmark = pytest.mark.unit


def test_step__constant_mean__looks_one_step_ahead_of_momentum() -> None:
    """m_t = 2 - 2^-t for β = 1/2, and D + β·m_t = m_{t+1}."""
    made, moments = steps("nesterov", [np.ones(1)] * 5, Constants(0.5, momentum=0.5))
    assert [float(step[0]) for step in made] == [0.5 * (2 - 2.0 ** -(k + 1)) for k in range(5)]
    assert moments.tolist() == [[2 - 2.0**-4]]


def test_step__diloco_constants__first_step_is_1_33_of_the_mean() -> None:
    (first,), _ = steps("nesterov", [np.array([1.0, -1.0])], Constants(0.7, momentum=0.9))
    assert first == pytest.approx([1.33, -1.33], abs=1e-15)
