# SPDX-License-Identifier: Apache-2.0
"""One small tensor for golden vectors: many sizes and signs, a block of zeros, subnormals, a short last block."""

import numpy as np

TENSOR = np.array(
    [(-1) ** i * (i + 1) * 2.0 ** -(i % 11) for i in range(31)]
    + [3.96875]
    + [0.0] * 32
    + [2.0**-149, -(2.0**-140), 2.0**-126, -1e-3, 0.25],
    dtype=np.float32,
)
