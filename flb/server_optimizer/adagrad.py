# SPDX-License-Identifier: Apache-2.0
"""FedAdagrad (Reddi et al., ICLR 2021, arXiv 2003.00295, algorithm 2), with β₁ = 0 as in the paper.

    v ← v + D²        x ← x + η·D / (√v + τ)        v before the first step is τ²

v never shrinks: under a constant D step t is η/√t, and the sum of all steps grows like 2η√t.
"""

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64
from flb.server_optimizer.adaptive import divided
from flb.server_optimizer.constants import Constants

CAPABILITIES = OptimizerCapabilities(moments=1, adaptive=True)


def step(mean: Float64, moments: Float64, constants: Constants) -> Float64:
    """The step for n mean updates; `moments`, of shape (n, 1), become those after the step."""
    v = moments[:, 0]
    np.add(v, np.multiply(mean, mean), out=v)
    return divided(mean, v, constants)
