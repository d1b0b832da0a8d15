# SPDX-License-Identifier: Apache-2.0
"""Server SGD."""

import numpy as np
import pytest

from flb.server_optimizer.sgd import step

pytestmark = pytest.mark.unit


def test_step__learning_rate__scales() -> None:
    mean = np.array([1.0, -2.0])
    assert np.array_equal(step(mean, 0.5), [0.5, -1.0])
    assert step(mean, 1.0) is mean
