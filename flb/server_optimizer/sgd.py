# SPDX-License-Identifier: Apache-2.0
"""Server SGD: step = learning rate · mean update; with 1.0 it is FedAvg. It has no state."""

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64

CAPABILITIES = OptimizerCapabilities(moments=0)


def step(mean: Float64, learning_rate: float) -> Float64:
    """The step in float64; one multiplication, none for a learning rate of 1."""
    if learning_rate == 1.0:
        return mean
    return mean * np.float64(learning_rate)
