# SPDX-License-Identifier: Apache-2.0
"""The ring: values as int64 in units of 2^-F, so that a sum does not depend on order, threads or machine.

Rules and proofs are in docs/arithmetic.md 1 and 2. Everything works on blocks of `BLOCK` elements in buffers that the
caller reuses, so memory does not grow with the cohort or the adapter. This is the one module that does arithmetic on
updates and adapters.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.errors import Fatal, NormTooLarge, NotFinite, ValueTooLarge

BLOCK = 32_768
"""Elements a block: three float64 blocks fit into the second-level cache."""

NORM_BITS = 26
"""An honest reduced update has a norm of at most 2^26, so every sum of squares is exact in float64."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


def assert_ieee() -> None:
    """Refuse to run where rounding is not to nearest even or subnormals are flushed. Raises Fatal."""
    tiny = np.float32(2.0**-149)
    half = np.float64(1) + np.float64(2.0**-53)
    up = np.float64(1) + np.float64(2.0**-52) + np.float64(2.0**-53)
    if tiny * np.float32(1) == 0 or half != 1.0 or up != 1.0 + 2.0**-51:
        raise Fatal("the processor's rounding mode is not IEEE nearest-even, or it flushes subnormals", "reset it")


def check_bound(values: NDArray[np.floating[Any]], bound: float, name: str) -> None:
    """Raise NotFinite or ValueTooLarge unless every value is finite and at most `bound` in size.

    `name` says in the error which tensor it is.
    """
    if values.size == 0:
        return
    low, high = float(values.min()), float(values.max())  # a NaN makes both NaN
    if not (math.isfinite(low) and math.isfinite(high)):
        raise NotFinite(f"tensor {name} holds NaN or infinity", "the node's training diverged; lower its learning rate")
    if max(-low, high) > bound:
        raise ValueTooLarge(
            f"tensor {name} holds a value of size {max(-low, high):g}, beyond the run's bound {bound:g}",
            "lower the node's learning rate or raise ring.value_bound for the next run",
        )


def round_to_ring(values: NDArray[np.floating[Any]], fraction_bits: int, out: NDArray[np.floating[Any]]) -> None:
    """Write the integers round-half-even(values · 2^F) to `out`, still as floats of the same type.

    Exact in float32: a product with 2^F keeps the 24 significant bits, and rounding a number of 24 bits to an integer
    gives one of at most 24 bits, or a power of two. `out` may be `values`.
    """
    np.multiply(values, values.dtype.type(2.0**fraction_bits), out=out)
    np.rint(out, out=out)


def to_ring(values: NDArray[np.floating[Any]], fraction_bits: int, out: Int64) -> Int64:
    """Write round-half-even(values · 2^F) to `out` (int64, same shape) and return it.

    Only for values that passed `check_bound`: casting NaN or 1e30 differs between machines.
    """
    scaled = np.empty_like(values)
    round_to_ring(values, fraction_bits, scaled)
    np.copyto(out, scaled, casting="unsafe")
    return out


def exact_in_float64(weight_sum: int, value_bound: int, fraction_bits: int) -> bool:
    """Whether every partial sum of Σ w·q is an integer of at most 2^53, so that float64 adds it exactly in any order.

    Asked once a round. What is not exact in float64 is added in int64; both give the same numbers.
    """
    return weight_sum * value_bound << fraction_bits <= 1 << 53


def mean(weighted_sum: Int64 | Float64, denominator: int, fraction_bits: int) -> Float64:
    """float64(Σ w·q) / float64(D) · 2^-F: each of conversion and division rounds once, half to even."""
    result = weighted_sum.astype(np.float64)
    result /= np.float64(denominator)
    result *= np.float64(2.0**-fraction_bits)
    return result


def add_step(adapter: Float32, step: Float64) -> Float32:
    """float32(float64(adapter) + step): one addition, one cast."""
    total = adapter.astype(np.float64)
    total += step
    return total.astype(np.float32)


def difference(after: Float32, before: Float32) -> Float32:
    """The update of one tensor: after - before in float32 (one rounding), flat or not."""
    if after.shape != before.shape:
        raise Fatal(f"shapes {after.shape} and {before.shape} differ", "report this as a defect")
    return np.subtract(after, before, dtype=np.float32)


def norm_shift(norm_bound: int, fraction_bits: int) -> int:
    """t such that a vector of norm `norm_bound` (a power of two) has norm 2^26 in units of 2^(t-F)."""
    return fraction_bits + norm_bound.bit_length() - 1 - NORM_BITS


class NormCheck:
    """Exact check of ‖update‖ ≤ norm_bound over blocks: r = round-half-even(q · 2^-t), then Σ r² ≤ 2^52.

    Each square is at most 2^52 once |r| ≤ 2^26 holds, and a float64 sum of non-negative integers is exact up to
    2^53, so the decision does not depend on the order of additions.
    """

    __slots__ = ("_narrow", "_scale", "_wide", "bound", "total")

    def __init__(self, norm_bound: int, fraction_bits: int) -> None:
        self.bound = norm_bound
        self.total = 0.0
        self._scale = 2.0 ** -norm_shift(norm_bound, fraction_bits)
        self._narrow, self._wide = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float64)

    def add(self, block: Int64 | Float32) -> None:
        """Take one block of at most `BLOCK` ring values. Raises NormTooLarge as soon as the bound is passed.

        Ring values in float32 (`round_to_ring`) stay there until they are squared: an integer q of 24 significant
        bits times 2^-t keeps them (it would have to fall below 2^-126 to lose one, and is then 0 either way), and r is
        an integer of as many. r² needs 48 bits: it is taken in float64.
        """
        wide = self._wide[: block.size]
        reduced: NDArray[np.floating[Any]] = self._narrow[: block.size] if block.dtype == np.float32 else wide
        np.multiply(block, reduced.dtype.type(self._scale), out=reduced)
        np.rint(reduced, out=reduced)
        if reduced.size and max(-float(reduced.min()), float(reduced.max())) > 2**NORM_BITS:
            self.refuse()
        np.copyto(wide, reduced)
        self.total += float(np.dot(wide, wide))
        if self.total > 2 ** (2 * NORM_BITS):
            self.refuse()

    def refuse(self) -> None:
        """Raise NormTooLarge."""
        raise NormTooLarge(
            f"the update's norm is beyond the run's bound {self.bound}",
            "lower the node's learning rate or raise ring.norm_bound for the next run",
        )

    @property
    def norm(self) -> float:
        """The norm in units of the update's values, for reports only."""
        return math.sqrt(self.total) * float(self.bound) / float(1 << NORM_BITS)


class Estimate:
    """Bounds an update from above with one float32 product a block: enough to admit, never to refuse.

    For n ≤ 2^17 values a float32 sum of squares d, in any order, with or without FMA, is within n·2^-24/(1 - n·2^-24)
    < 0.8 % of the true one (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, 3.1), so √d·`SURE` bounds
    the block's norm, and every value in it. Each of the two roundings of `NormCheck` moves a value by half a unit at most,
    2^-F and 2^(t-F), so the norm of the reduced values is at most that of the values plus √n times half their sum. What stays within both bounds then passes the exact checks too;
    NaN, infinity and anything near a bound does not stay within, and is left to them.
    """

    SIZE = 4 * BLOCK
    SURE = 1.02

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, values: Float32, value_bound: float) -> bool:
        """Take at most `SIZE` values; whether each is surely finite and at most `value_bound` in size."""
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is an answer here
            square = float(np.dot(values, values))
        self.total += square
        self.count += values.size
        return math.sqrt(square) * self.SURE < value_bound if square >= 0 else False  # NaN compares as False

    def within(self, norm_bound: int, fraction_bits: int) -> bool:
        """Whether the norm of all that was taken surely passes `NormCheck`."""
        unit = (2.0 ** (norm_shift(norm_bound, fraction_bits) - fraction_bits) + 2.0**-fraction_bits) / 2
        return self.norm * self.SURE + math.sqrt(self.count) * unit < norm_bound

    @property
    def norm(self) -> float:
        """About the norm of the values, for reports."""
        return math.sqrt(self.total)
