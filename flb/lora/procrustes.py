# SPDX-License-Identifier: Apache-2.0
"""Orthogonal Procrustes (Schönemann, 1966): of all bases of one product, the one nearest to the adapter before.

B'O·OᵀA' is the same product for every orthogonal O. The one that minimises ‖B'O − B‖² + ‖OᵀA' − A‖² is O = UVᵀ of the
singular value decomposition of B'ᵀB + A'Aᵀ, of shape (r, r). With it the difference of two adapters is a step, so that
moments of a server optimizer keep their meaning. The directions are then no longer in the order of singular values.
"""

import numpy as np

from flb.delta import Float32, Float64


def align(b: Float64, a: Float64, b_before: Float32 | Float64, a_before: Float32 | Float64) -> tuple[Float64, Float64]:
    """B'O (d, r) and OᵀA' (r, k) for B' (d, r), A' (r, k) and the adapter before, of the same shapes."""
    u, _, vt = np.linalg.svd(b.T @ b_before.astype(np.float64) + a @ a_before.astype(np.float64).T)
    rotation = u @ vt
    return b @ rotation, rotation.T @ a
