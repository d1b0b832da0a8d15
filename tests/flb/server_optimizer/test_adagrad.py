# SPDX-License-Identifier: Apache-2.0
"""FedAdagrad against its closed form."""

import numpy as np
import pytest

from flb.server_optimizer.constants import Constants
from tests.optimizing import steps

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("size", [1.0, -0.25])
def test_step__constant_mean__falls_like_one_over_the_root(size: float) -> None:
    made, moments = steps("adagrad", [np.array([size])] * 16, Constants(0.1, tau=0.0))
    wanted = [np.sign(size) * 0.1 / np.sqrt(t) for t in range(1, 17)]
    assert [float(step[0]) for step in made] == pytest.approx(wanted, rel=1e-15)
    assert moments.tolist() == [[16 * size * size]]


def test_step__tau__starts_the_sum_and_adds_to_the_root() -> None:
    (first,), moments = steps("adagrad", [np.array([4.0])], Constants(1.0, tau=3.0))
    assert moments.tolist() == [[25.0]] and first[0] == 4.0 / (5.0 + 3.0)
