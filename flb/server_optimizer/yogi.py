# SPDX-License-Identifier: Apache-2.0
"""FedYogi (Reddi et al., ICLR 2021, arXiv 2003.00295, algorithm 2).

    m ← β₁·m + (1 - β₁)·D        v ← v - (1 - β₂)·D²·sign(v - D²)        x ← x + η·m / (√v + τ)

v moves by (1 - β₂)·D² at most: where updates become small it falls more slowly than Adam's, so the steps do not jump.
It stays above 0: it falls only where v > D². No bias correction; v before the first step is τ².
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
    sign = np.subtract(v, square)
    np.sign(sign, out=sign)
    np.multiply(square, 1.0 - constants.beta2, out=square)
    np.multiply(square, sign, out=square)
    np.subtract(v, square, out=v)
    return divided(m, v, constants)
