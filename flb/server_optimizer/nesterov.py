# SPDX-License-Identifier: Apache-2.0
"""Nesterov momentum: the outer optimizer of DiLoCo (Douillard et al., 2023, arXiv 2311.08105).

    m ← β·m + D        x ← x + η·(D + β·m)

The paper writes it for the gradient g = -D and subtracts; negation is exact, so the bits are the same. DiLoCo takes
η = 0.7 and β = 0.9. With β = 0 it is server SGD.
"""

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64
from flb.server_optimizer.constants import Constants

CAPABILITIES = OptimizerCapabilities(moments=1)


def step(mean: Float64, moments: Float64, constants: Constants) -> Float64:
    """The step for n mean updates; `moments`, of shape (n, 1), become those after the step."""
    m = moments[:, 0]
    np.multiply(m, constants.momentum, out=m)
    np.add(m, mean, out=m)
    moved = np.multiply(m, constants.momentum)
    np.add(mean, moved, out=moved)
    np.multiply(moved, constants.learning_rate, out=moved)
    return moved
