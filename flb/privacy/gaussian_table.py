# SPDX-License-Identifier: Apache-2.0
"""The table of one discrete Gaussian: thresholds of its distribution function to 128 bits, and 65,536 slots of them.

P(X = x) ∝ exp(-x²/2σ²) over the integers. Thresholds are worked out with `decimal` at 60 digits: of these at most 7 are
lost to rounding in the recurrence below, and 39 make 128 bits. Beyond the last threshold lies less than 2^-128.
"""

import decimal
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

DIGITS = 60
BITS = 128
SLOTS = 1 << 16
DECIDED = -16384
"""A slot below it is ambiguous: a threshold falls into it, and it holds FIRST_CODE plus its number among such slots."""
FIRST_CODE = -32768


@dataclass(frozen=True, slots=True)
class Table:
    """`thresholds[i]` is round(2^128 · P(X ≤ first + i)); U below it and not below the one before gives first + i."""

    first: int
    thresholds: tuple[int, ...]
    heads: NDArray[np.uint64]
    """The upper 64 bits of each threshold."""
    slots: NDArray[np.int16]
    """The value for the upper 16 bits of U, or the code of an ambiguous slot."""
    words: NDArray[np.uint64]
    """Of each ambiguous slot, here and below: its number, times 2^48."""
    below: NDArray[np.int64]
    """The value below its first threshold."""
    lows: NDArray[np.uint64]
    """The 48 bits of that threshold which follow the slot's 16."""
    crowded: NDArray[np.bool_]
    """Whether more than one threshold lies in it."""

    def invert(self, codes: NDArray[np.int16], lows: NDArray[np.uint64]) -> tuple[NDArray[np.int16], list[int]]:
        """Values for ambiguous slots and the next 48 bits of U, and the indices of those that the last 64 must decide.

        Nearly every such slot holds one threshold: it is compared with. Slots of the tails hold several.
        """
        slots = codes.astype(np.intp)
        slots -= FIRST_CODE
        threshold = self.lows[slots]
        values = self.below[slots] + (lows >= threshold)
        ties = lows == threshold
        (several,) = np.nonzero(self.crowded[slots])
        if several.size:
            heads = self.words[slots[several]] | lows[several]
            values[several] = np.searchsorted(self.heads, heads, side="right") + self.first
            ties[several] = np.searchsorted(self.heads, heads, side="left") + self.first != values[several]
        return values.astype(np.int16), [int(index) for index in np.flatnonzero(ties)]

    def invert_exactly(self, uniform: int) -> int:
        """The value for all 128 bits of U."""
        low, high = 0, len(self.thresholds)
        while low < high:
            middle = (low + high) // 2
            if uniform < self.thresholds[middle]:
                high = middle
            else:
                low = middle + 1
        return self.first + low


def weights(variance: Fraction) -> list[decimal.Decimal]:
    """exp(-x²/2σ²) for x = 0, 1, 2, ... until the rest is below 2^-136 of the whole.

    Each is the one before times exp(-(2x+1)/2σ²), and that factor times exp(-1/σ²) is the next: after x steps the error
    is below x² of the last digit.
    """
    with decimal.localcontext(decimal.Context(prec=DIGITS, Emin=-(10**6), Emax=10**6)):
        inverse = decimal.Decimal(variance.denominator) / decimal.Decimal(variance.numerator)
        ratio, step = (-inverse / 2).exp(), (-inverse).exp()
        last = math.ceil(math.sqrt(2 * 136 * math.log(2) * float(variance)))
        found = [decimal.Decimal(1)]
        for _ in range(last):
            found.append(found[-1] * ratio)
            ratio *= step
    return found


def make_table(variance: Fraction) -> Table:
    """The table for σ² = `variance`, up to 300²."""
    half = weights(variance)
    with decimal.localcontext(decimal.Context(prec=DIGITS, Emin=-(10**6), Emax=10**6)):
        whole = half[0] + 2 * sum(half[1:])
        scale, running, thresholds = decimal.Decimal(1 << BITS) / whole, decimal.Decimal(0), []
        for weight in (*reversed(half[1:]), *half[:-1]):
            running += weight
            thresholds.append(int((running * scale).to_integral_value()))
    thresholds = [threshold for threshold in thresholds if threshold < 1 << BITS]  # what never comes has none
    first = 1 - len(half)
    heads = np.array([threshold >> 64 for threshold in thresholds], dtype=np.uint64)
    tops = np.array([threshold >> (BITS - 16) for threshold in thresholds], dtype=np.int64)
    inside = np.array([threshold & ((1 << (BITS - 16)) - 1) != 0 for threshold in thresholds])
    starts = np.searchsorted(tops, np.arange(SLOTS), side="left")
    ends = np.searchsorted(tops, np.arange(SLOTS), side="right")
    slots = (ends + first).astype(np.int16)
    ambiguous = np.unique(tops[inside])
    slots[ambiguous] = FIRST_CODE + np.arange(ambiguous.size)
    return Table(
        first, tuple(thresholds), heads, slots, ambiguous.astype(np.uint64) << np.uint64(48), starts[ambiguous] + first,
        heads[starts[ambiguous]] & np.uint64((1 << 48) - 1), (ends - starts)[ambiguous] > 1,
    )  # fmt: skip
