# SPDX-License-Identifier: Apache-2.0
"""Clipping of ring integers to a norm, exactly: no float decides, so the bound holds for whatever comes in.

An update beyond the bound is multiplied by an integer fraction n/2^k, each product cut off toward zero; then
Σ q² ≤ bound² is verified in exact integers, and n shrinks until it is true (docs/arithmetic.md 6). One flat norm over
all tensors (McMahan et al., arXiv 1710.06963). Updates are walked through several times and never copied whole.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from flb.delta import BLOCK, Float64, Int64
from flb.errors import Fatal, Refused, ValueTooLarge

LIMB_BITS = 19
"""A product of two limbs is below 2^38, so a sum of `BLOCK` = 2^15 of them is at most 2^53: exact in float64."""
LARGEST_BITS = 62
"""|q| is below 2^62."""

Blocks = Callable[[], Iterable[Int64]]
"""Walks through the update, from the start at every call."""


@dataclass(frozen=True, slots=True)
class Factor:
    """What an update is multiplied by: `numerator` / 2^`shift`; 1 leaves every value as it is."""

    numerator: int
    shift: int

    def apply(self, values: Int64) -> None:
        """Multiply in place, each product cut off toward zero. Only for values whose size the factor was made for."""
        if self.numerator == 1 << self.shift:
            return
        negative = values < 0
        np.abs(values, out=values)
        values *= np.int64(self.numerator)
        values >>= np.int64(self.shift)
        np.negative(values, out=values, where=negative)


ONE = Factor(1, 0)


def ring_norm(norm: float, fraction_bits: int) -> int:
    """⌊norm · 2^F⌋, exactly. Raises Refused for a norm that is not a number above 0, or is below one unit."""
    if not 0 < norm < math.inf:
        raise Refused(f"the clip norm is {norm}", "choose a number above 0")
    bound = math.floor(Fraction(norm) * (1 << fraction_bits))
    if bound < 1:
        raise Refused(f"the clip norm {norm} is below one unit, 2^-{fraction_bits}", "choose a larger one")
    return bound


class SquareSum:
    """Σ q² of ring values in exact integers, with the bits of the largest |q|."""

    __slots__ = ("_limbs", "bits", "total")

    def __init__(self) -> None:
        self.total, self.bits = 0, 0
        self._limbs: list[Float64] = []

    def add(self, values: Int64) -> None:
        """Take any number of flat int64 values. Raises Fatal for another type, ValueTooLarge from 2^62 on."""
        if values.dtype != np.int64:
            raise Fatal(f"clipping got {values.dtype}, and takes ring integers", "report this as a defect")
        for start in range(0, values.size, BLOCK):
            self._add_block(values[start : start + BLOCK])

    def _add_block(self, block: Int64) -> None:
        bits = max(int(block.max()), -int(block.min())).bit_length()
        if bits > LARGEST_BITS:
            raise ValueTooLarge("an update holds a value from 2^62 units on", "lower the node's learning rate")
        self.bits = max(self.bits, bits)
        rest, limbs = np.abs(block), []
        for at in range(0, bits, LIMB_BITS):
            limb = self._buffer(at // LIMB_BITS)[: block.size]
            np.copyto(limb, rest & np.int64((1 << LIMB_BITS) - 1))
            rest >>= np.int64(LIMB_BITS)
            limbs.append(limb)
        for i, left in enumerate(limbs):
            self.total += int(np.dot(left, left)) << (2 * i * LIMB_BITS)
            for j, right in enumerate(limbs[:i]):
                self.total += int(np.dot(left, right)) << ((i + j) * LIMB_BITS + 1)

    def _buffer(self, index: int) -> Float64:
        if index == len(self._limbs):
            self._limbs.append(np.empty(BLOCK, dtype=np.float64))
        return self._limbs[index]


def clip_factor(blocks: Blocks, bound: int) -> Factor:
    """The factor that brings an update's norm to at most `bound` units, verified; 1 where it is there already.

    An update of zeros is within every bound. `blocks` is walked through once, and twice where something is clipped.
    Raises ValueTooLarge and Fatal as `SquareSum`.
    """
    found = measured(blocks, ONE)
    if found.total <= bound * bound:
        return ONE
    shift = 63 - found.bits  # |q| < 2^bits and numerator < 2^shift: the product stays below 2^63
    # the root is rounded up and the quotient down, so that the first try nearly always holds
    numerator = (bound << shift) // (math.isqrt(found.total - 1) + 1)
    while measured(blocks, Factor(numerator, shift)).total > bound * bound:
        numerator -= 1
    return Factor(numerator, shift)


def measured(blocks: Blocks, factor: Factor) -> SquareSum:
    """Σ q² of the update after the factor."""
    squares = SquareSum()
    for block in blocks():
        if factor is ONE:
            squares.add(block)
        else:
            scaled = block.copy()
            factor.apply(scaled)
            squares.add(scaled)
    return squares
