# SPDX-License-Identifier: Apache-2.0
"""Server SGD: step = learning rate · mean update; with 1.0 it is FedAvg. It has no state."""

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64
from flb.server_optimizer.constants import Constants

CAPABILITIES = OptimizerCapabilities(moments=0)


def step(mean: Float64, moments: Float64, constants: Constants) -> Float64:
    """The step in float64; one multiplication, none for a learning rate of 1. `moments` has shape (n, 0)."""
    if constants.learning_rate == 1.0:
        return mean
    return np.multiply(mean, constants.learning_rate)
