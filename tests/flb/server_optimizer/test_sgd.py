# SPDX-License-Identifier: Apache-2.0
"""Server SGD."""

import numpy as np
import pytest

from flb.server_optimizer.constants import Constants
from flb.server_optimizer.sgd import step

pytestmark = pytest.mark.unit


def test_step__learning_rate__scales() -> None:
    mean, none = np.array([1.0, -2.0]), np.empty((2, 0))
    assert np.array_equal(step(mean, none, Constants(0.5)), [0.5, -1.0])
    assert step(mean, none, Constants(1.0)) is mean
