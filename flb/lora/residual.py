# SPDX-License-Identifier: Apache-2.0
"""The residual of FedEx-LoRA (Singhal et al., ACL 2025, arXiv 2410.09432): what the mean of each factor on its own
misses of the mean of the products, kept as frozen directions of the adapter.

Σ pᵢ(Bᵢ − B̄)(Aᵢ − Ā) is a product over the stack of `mean_product`. Together with the frozen part before it is cut to
r' directions, so an adapter of rank r + r' holds [B̄ F_B] and [Ā; F_A]; nodes train the first r directions alone.
"""

from collections.abc import Sequence

import numpy as np

from flb.delta import Float64
from flb.lora import mean_product


def coefficients(taken: Sequence[Float64], r: int, frozen: int) -> Float64:
    """C of residual plus frozen part over [B dB₁ … dBₙ F_B] and [A; dA₁; …; dAₙ; F_A], `frozen` directions last."""
    fresh = mean_product.residual(taken, r)
    size = fresh.shape[0] + frozen
    both = np.zeros((size, size))
    both[: fresh.shape[0], : fresh.shape[0]] = fresh
    last = np.arange(fresh.shape[0], size)
    both[last, last] = 1.0
    return both
