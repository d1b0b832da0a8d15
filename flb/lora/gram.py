# SPDX-License-Identifier: Apache-2.0
"""Factors of many nodes side by side, seen through their Gram matrices: nothing of the size of a weight is ever formed.

A product in the span of a stack is W = L·C·R, with L = [L₁ … Lₙ] of shape (d, R), R = [R₁; …; Rₙ] of shape (R, k) and
coefficients C of shape (R, R). Its norm is ‖W‖² = tr(Cᵀ·LᵀL·C·RRᵀ), so two matrices of shape (R, R) answer for it. The
parts stay in float32, in which ring values and adapters are exact; blocks of them are multiplied in float64. A sum in
BLAS has no fixed order: what comes out is certified (docs/arithmetic.md 11), never compared bit by bit.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from flb.delta import Float32, Float64

BLOCK_ITEMS = 1 << 18
"""Values of a block in float64: 2 MiB, whatever the cohort."""


def column_blocks(parts: Sequence[Float32 | Float64]) -> Iterator[tuple[slice, Float64]]:
    """Rows of [L₁ … Lₙ], parts of shape (d, rᵢ), as float64 blocks of shape (rows, R) in a buffer that is reused."""
    total, rows = sum(part.shape[1] for part in parts), parts[0].shape[0]
    step = max(1, min(rows, BLOCK_ITEMS // max(1, total)))
    buffer = np.empty((step, total), dtype=np.float64)
    for start in range(0, rows, step):
        taken = slice(start, min(start + step, rows))
        block, first = buffer[: taken.stop - taken.start], 0
        for part in parts:
            block[:, first : first + part.shape[1]] = part[taken]
            first += part.shape[1]
        yield taken, block


def row_blocks(parts: Sequence[Float32 | Float64]) -> Iterator[tuple[slice, Float64]]:
    """Columns of [R₁; …; Rₙ], parts of shape (rᵢ, k), as float64 blocks of shape (R, columns) in a reused buffer."""
    total, columns = sum(part.shape[0] for part in parts), parts[0].shape[1]
    step = max(1, min(columns, BLOCK_ITEMS // max(1, total)))
    buffer = np.empty(total * step, dtype=np.float64)
    for start in range(0, columns, step):
        taken = slice(start, min(start + step, columns))
        count = taken.stop - taken.start
        block, first = buffer[: total * count].reshape(total, count), 0
        for part in parts:
            block[first : first + part.shape[0]] = part[:, taken]
            first += part.shape[0]
        yield taken, block


def of_columns(parts: Sequence[Float32 | Float64]) -> Float64:
    """LᵀL of [L₁ … Lₙ], shape (R, R)."""
    total = sum(part.shape[1] for part in parts)
    gram = np.zeros((total, total))
    for _, block in column_blocks(parts):
        gram += block.T @ block  # numpy sees one matrix twice and does half the work
    return gram


def of_rows(parts: Sequence[Float32 | Float64]) -> Float64:
    """RRᵀ of [R₁; …; Rₙ], shape (R, R)."""
    total = sum(part.shape[0] for part in parts)
    gram = np.zeros((total, total))
    for _, block in row_blocks(parts):
        gram += block @ block.T
    return gram


def times_columns(parts: Sequence[Float32 | Float64], right: Float64) -> Float64:
    """[L₁ … Lₙ]·right, shape (d, m), for `right` of shape (R, m)."""
    out = np.empty((parts[0].shape[0], right.shape[1]))
    for taken, block in column_blocks(parts):
        np.matmul(block, right, out=out[taken])
    return out


def times_rows(left: Float64, parts: Sequence[Float32 | Float64]) -> Float64:
    """left·[R₁; …; Rₙ], shape (m, k), for `left` of shape (m, R)."""
    out = np.empty((left.shape[0], parts[0].shape[1]))
    for taken, block in row_blocks(parts):
        out[:, taken] = left @ block
    return out


def square(coefficients: Float64, left: Float64, right: Float64) -> float:
    """‖L·C·R‖² from C and both Gram matrices; rounding below zero counts as zero, and NaN stays NaN."""
    found = float(np.sum((left @ coefficients) * (coefficients @ right)))
    return max(found, 0.0)  # in this order: what compares with NaN is not taken
