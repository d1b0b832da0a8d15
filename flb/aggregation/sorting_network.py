# SPDX-License-Identifier: Apache-2.0
"""Networks of comparators that separate a range of order statistics from the rest, for any number of inputs.

The same comparisons for every input, so each is one numpy call over a whole block. It is Batcher's merge exchange
(Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M) without the comparators that cannot change which values
end up in the range: order within the range, or outside it, is not asked for.
"""

from collections.abc import Iterator
from typing import NamedTuple


class Comparator(NamedTuple):
    """Leaves the smaller of two values at `low` and the larger at `high`; what nothing reads need not be written."""

    low: int
    high: int
    keep_low: bool
    keep_high: bool


def merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    """Pairs (low, high) whose comparison, in order, sorts any `count` values."""
    top = 1 << max(0, (count - 1).bit_length() - 1)
    step = top if count > 1 else 0
    while step:
        width, residue, distance = top, 0, step
        while True:
            for low in range(count - distance):
                if low & step == residue:
                    yield low, low + distance
            if width == step:
                break
            distance, residue = width - step, step
            width >>= 1
        step >>= 1


def selection(count: int, first: int, last: int) -> tuple[Comparator, ...]:
    """Comparators after which positions `first` to `last` - 1 hold the values of these ranks (from 0), in any order.

    Walked from the end: a comparator is dead while both of its outputs stay in the range, or both outside.
    """
    if not 0 <= first < last <= count:
        raise ValueError(f"ranks {first} to {last} of {count} values")
    inside, outside, undecided = "inside", "outside", "undecided"
    fate = [inside if first <= wire < last else outside for wire in range(count)]
    kept = []
    for low, high in reversed(list(merge_exchange(count))):
        if fate[low] == fate[high] != undecided:
            continue
        kept.append(Comparator(low, high, fate[low] != outside, fate[high] != outside))
        fate[low] = fate[high] = undecided
    return tuple(reversed(kept))
