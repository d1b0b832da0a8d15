# SPDX-License-Identifier: Apache-2.0
"""Server momentum: FedAvgM (Hsu, Qi, Brown, 2019, arXiv 1909.06335).

    m ← β·m + D        x ← x + η·m

D is not damped by 1 - β, so with a constant D the step grows to η·D/(1 - β). With β = 0 it is server SGD.
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
    return np.multiply(m, constants.learning_rate)
