# SPDX-License-Identifier: Apache-2.0
"""FedAvgM against its closed form."""

import numpy as np
import pytest

from flb.server_optimizer.constants import Constants
from tests.optimizing import steps

pytestmark = pytest.mark.unit


def test_step__constant_mean__grows_as_the_geometric_series() -> None:
    made, _ = steps("momentum", [np.ones(1)] * 5, Constants(0.5, momentum=0.5))
    assert [float(step[0]) for step in made] == [0.5 * (2 - 2.0**-k) for k in range(5)]


def test_step__first_mean__is_not_damped() -> None:
    (first, *_), moments = steps("momentum", [np.array([3.0])], Constants(1.0, momentum=0.9))
    assert first[0] == 3.0 and moments.tolist() == [[3.0]]
