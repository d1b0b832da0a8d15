# SPDX-License-Identifier: Apache-2.0
"""FedAdam (Reddi et al., ICLR 2021, arXiv 2003.00295, algorithm 2).

    m ← β₁·m + (1 - β₁)·D        v ← β₂·v + (1 - β₂)·D²        x ← x + η·m / (√v + τ)

As in the paper there is no bias correction, and v before the first step is τ². With β₁ = 0.9, β₂ = 0.99 and a small τ
the first step is η·sign(D), since (1 - β₁) = √(1 - β₂).
"""

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64
from flb.server_optimizer.adaptive import average, divided
from flb.server_optimizer.constants import Constants

CAPABILITIES = OptimizerCapabilities(moments=2, adaptive=True)


def step(mean: Float64, moments: Float64, constants: Constants) -> Float64:
    """The step for n mean updates; `moments`, of shape (n, 2), m and v, become those after the step."""
    m, v = moments[:, 0], moments[:, 1]
    average(m, mean, constants)
    square = np.multiply(mean, mean)
    np.multiply(square, 1.0 - constants.beta2, out=square)
    np.multiply(v, constants.beta2, out=v)
    np.add(v, square, out=v)
    return divided(m, v, constants)
