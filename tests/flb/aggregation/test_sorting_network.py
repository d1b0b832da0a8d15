# SPDX-License-Identifier: Apache-2.0
"""Networks: by the 0-1 principle a network is right for all inputs if it is for zeros and ones."""

import itertools

import pytest

from flb.aggregation.sorting_network import merge_exchange, selection

pytestmark = pytest.mark.unit


def apply(count: int, first: int, last: int, values: list[float]) -> list[float]:
    """What stays in the range; a value that a half comparator does not write is lost."""
    wires: list[float | None] = list(values)
    for low, high, keep_low, keep_high in selection(count, first, last):
        pair = wires[low], wires[high]
        assert None not in pair, "nothing reads what was not written"
        wires[low] = min(pair) if keep_low else None  # type: ignore[type-var]
        wires[high] = max(pair) if keep_high else None  # type: ignore[type-var]
    return sorted(wires[first:last])  # type: ignore[type-var]


@pytest.mark.parametrize("count", range(1, 12))
def test_merge_exchange__zeros_and_ones__sorts(count: int) -> None:
    for bits in itertools.product((0, 1), repeat=count):
        wires = list(bits)
        for low, high in merge_exchange(count):
            wires[low], wires[high] = sorted((wires[low], wires[high]))
        assert wires == sorted(bits)


@pytest.mark.parametrize("count", range(1, 10))
def test_selection__every_range_of_zeros_and_ones__keeps_the_ranks(count: int) -> None:
    for first in range(count):
        for last in range(first + 1, count + 1):
            for bits in itertools.product((0, 1), repeat=count):
                assert apply(count, first, last, list(bits)) == sorted(bits)[first:last]


def test_selection__dead_comparators__are_gone() -> None:
    whole = len(list(merge_exchange(16)))
    assert selection(16, 0, 16) == ()
    assert len(selection(16, 7, 9)) < whole
    assert len(selection(16, 1, 15)) == 8 + 7 + 7, "lowest and highest of 16 need a tournament each"


@pytest.mark.parametrize(("first", "last"), [(-1, 2), (2, 2), (3, 2), (0, 5)])
def test_selection__no_range__is_a_defect(first: int, last: int) -> None:
    with pytest.raises(ValueError):
        selection(4, first, last)
