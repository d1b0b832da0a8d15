# SPDX-License-Identifier: Apache-2.0
"""The Gram matrix of BᵢAᵢ - BA, for modes that send both factors: what counts is the product, not who holds its length.

A mode that then averages each factor on its own needs more: (gB, A/g) has an honest product, and ruins mean(B)·mean(A).
There an update is the vector (BᵢAᵢ - BA, dBᵢ, dAᵢ), so a node that rescales its factors is far from all others. The parts
count alike: rows of adapter 0's A have a length near 1, so a step of B moves the product by about its own length.

Distances between factors would be another rule: (B·G, G⁻¹·A) is the same product, and a node could make its factors
near or far at will. With BᵢAᵢ - BA = dBᵢ·Aᵢ + B·dAᵢ the inner product of two updates of a module is

    tr(dBᵢᵀdBⱼ · AⱼAᵢᵀ) + tr(dBᵢᵀB · dAⱼAᵢᵀ) + tr(BᵀdBⱼ · AⱼdAᵢᵀ) + tr(BᵀB · dAⱼdAᵢᵀ)

so it needs the columns of B and dB, the rows of A and dA, and no matrix of the module's size. Their Gram matrices are
exact (`flb.aggregation.gram`): updates in the units of the norm bound, the base adapter in units that follow from its
largest entry. The traces are float64 chains in index order. The sum over modules, in file order, is rounded to
integers of a public unit, so that rules see the same kind of matrix in every mode.
"""

import math
from typing import NamedTuple

import numpy as np

from flb.delta import NORM_BITS, Float64, Int64


class Unit(NamedTuple):
    """Integers stand for multiples of 2^`exponent`."""

    exponent: int

    @property
    def value(self) -> float:
        """One unit."""
        return 2.0**self.exponent


def base_unit(largest: float, length: int) -> Unit:
    """The unit in which a vector of `length` entries of size at most `largest` has a norm of at most 2^26."""
    bits = math.frexp(largest)[1] if largest else 0
    return Unit(bits + (max(length - 1, 0).bit_length() + 1) // 2 - NORM_BITS)


def update_unit(norm_bound: int) -> Unit:
    """The unit in which an admitted update has a norm of at most 2^26."""
    return Unit(norm_bound.bit_length() - 1 - NORM_BITS)


def square_bound(largest: float, size: int) -> float:
    """At least Σ x² of `size` entries of size at most `largest`: exact, so that every machine finds the same."""
    return size * 4.0 ** math.frexp(largest)[1] if largest else 0.0


def gram_unit(norm_bound: int, squares_a: float, squares_b: float, factors: bool = False) -> Unit:
    """The unit in which the norm of any admitted update is at most 2^26 in product space, or with `factors` beside it.

    ‖dB·A' + B·dA‖ ≤ N(a + N) + b·N with a² and b² at least the summed squares of the base's factors; dB and dA add N.
    """
    reach = norm_bound * (norm_bound + math.sqrt(squares_a) + math.sqrt(squares_b) + factors)
    return Unit(math.frexp(reach)[1] - NORM_BITS)


def module(
    left: Float64, right: Float64, rank: int, base_b: Unit, base_a: Unit, update: Unit, factors: bool = False
) -> Float64:
    """(n, n) inner products of one module, from Gram matrices of (n + 1)·r vectors, the base's r first; with `factors`
    those of dB and dA are added.

    `left` is of the columns of B, dB₁ to dBₙ, `right` of the rows of A, dA₁ to dAₙ, both in integers of their units; they are
    scratch afterwards.
    """
    count = len(left) // rank - 1
    p = _scale(left, rank, base_b, update).reshape(count + 1, rank, count + 1, rank)
    q = _scale(right, rank, base_a, update).reshape(count + 1, rank, count + 1, rank)
    gram = np.empty((count, count))
    for i in range(count):
        a_aj = q[0, :, :1] + q[0, :, 1:]  # A·Aⱼᵀ as (r, n, r)
        d_aj = q[i + 1, :, :1] + q[i + 1, :, 1:]  # dAᵢ·Aⱼᵀ
        a_dj, d_dj = q[0, :, 1:], q[i + 1, :, 1:]
        terms = p[i + 1, :, 1:] * (a_aj + d_aj)
        terms += p[i + 1, :, :1] * (a_dj + d_dj)
        terms += p[0, :, 1:] * d_aj
        terms += p[0, :, :1] * d_dj
        rows = np.zeros((count, rank))
        for index in range(rank):
            rows += terms[index]
        total = np.zeros(count)
        for index in range(rank):
            total += rows[:, index]
        if factors:
            for index in range(rank):
                total += p[i + 1, index, 1:, index]
                total += q[i + 1, index, 1:, index]
        gram[i] = total
    return (gram + gram.T) * 0.5  # equal updates keep equal rows


def _scale(gram: Float64, rank: int, base: Unit, update: Unit) -> Float64:
    """The Gram matrix in values, in place; factors are powers of two, so nothing is rounded."""
    units = np.full(len(gram), update.value)
    units[:rank] = base.value
    gram *= units[:, None]
    gram *= units
    return gram


def integers(gram: Float64, unit: Unit) -> Int64:
    """The Gram matrix in integers of the unit's square, at most 2^52 each."""
    return np.rint(gram * 2.0 ** (-2 * unit.exponent)).astype(np.int64)
