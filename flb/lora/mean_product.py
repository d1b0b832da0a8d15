# SPDX-License-Identifier: Apache-2.0
"""What the updates of a round mean for the product BA, as coefficients over the stack of adapter and deviations.

Node i ends at (B + dBᵢ)(A + dAᵢ). With L = [B dB₁ … dBₙ] and R = [A; dA₁; …; dAₙ] everything that a round averages is
L·C·R, and the coefficients C follow from weights and ranks alone (docs/algorithms: the ideal update of federated LoRA,
Sun et al., arXiv 2403.12313). Deviations are ring values, small beside the adapter; nothing here subtracts near equals.
"""

from collections.abc import Sequence

import numpy as np

from flb.delta import Float64

MOST_DIRECTIONS = 4096
"""r + Σ rᵢ of a round in product space: Gram matrices of that size still fit, 128 MiB each in float64."""


def shares(
    weights: Sequence[int], ranks: Sequence[int], r: int, rate: float = 1.0, denominator: int = 0
) -> list[Float64]:
    """For each node, its share of every direction that it has, shape (rᵢ,): rate·wᵢ / `denominator`, 0 for Σ w.

    Where ranks differ, the denominator of a direction shrinks with the weight of the nodes that have it, so that directions
    that few nodes train do not decay (raFLoRA, arXiv 2602.13486).
    """
    whole, divisor = sum(weights), np.float64(denominator or sum(weights))
    totals = [sum(weight for weight, rank in zip(weights, ranks, strict=True) if rank > h) for h in range(r)]
    divisors = [divisor if total == whole else divisor * (total / whole) for total in totals]
    return [
        np.array([np.float64(rate) * np.float64(weight) / divisors[h] for h in range(rank)])
        for weight, rank in zip(weights, ranks, strict=True)
    ]


def places(ranks: Sequence[int], r: int) -> list[slice]:
    """Where each node's directions are in the stack; the adapter's own r come first."""
    starts = [r, *(r + sum(ranks[: index + 1]) for index in range(len(ranks)))]
    return [slice(start, start + rank) for start, rank in zip(starts, ranks, strict=False)]


def move(taken: Sequence[Float64], r: int) -> Float64:
    """C of Σ pᵢ(BᵢAᵢ − BA), what the ideal mean moves the product by, shape (R, R); `taken` as `shares` gives them."""
    ranks = [share.size for share in taken]
    size = r + sum(ranks)
    coefficients = np.zeros((size, size))
    for place, share in zip(places(ranks, r), taken, strict=True):
        directions, own = np.arange(share.size), np.arange(place.start, place.stop)
        coefficients[directions, own] = coefficients[own, directions] = coefficients[own, own] = share
    return coefficients


def target(taken: Sequence[Float64], r: int) -> Float64:
    """C of W* = BA + Σ pᵢ(BᵢAᵢ − BA), the ideal mean in product space, shape (R, R)."""
    coefficients = move(taken, r)
    coefficients[np.arange(r), np.arange(r)] = 1.0
    return coefficients


def residual(taken: Sequence[Float64], r: int) -> Float64:
    """C of W* − (B + Σ pᵢdBᵢ)(A + Σ pᵢdAᵢ), shape (R, R): what the mean of each factor on its own misses.

    With Σ pᵢ = 1 it is Σ pᵢ(Bᵢ − B̄)(Aᵢ − Ā). Ranks must be equal.
    """
    size = r * (1 + len(taken))
    coefficients, directions = np.zeros((size, size)), np.arange(r)
    for i, one in enumerate(taken):
        for j, other in enumerate(taken):
            own = one if i == j else np.zeros(r)
            coefficients[r * (i + 1) + directions, r * (j + 1) + directions] = own - one * other
    return coefficients
