# SPDX-License-Identifier: Apache-2.0
"""Sums of order statistics: by network and by partition, in every type, equal to a sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.aggregation import median, order_statistics, trimmed_mean
from flb.aggregation.order_statistics import NETWORK, RangeSum, block_size

pytestmark = pytest.mark.unit


def summed(values: np.ndarray, first: int, last: int, kind: type = np.float32, total: type = np.float64) -> list[int]:
    held = RangeSum(len(values), first, last, kind, values.shape[1])
    held.rows(values.shape[1])[:] = values
    return [int(value) for value in held.into(np.empty(values.shape[1], dtype=total))]


def expected(values: np.ndarray, first: int, last: int) -> list[int]:
    return [sum(sorted(int(value) for value in column)[first:last]) for column in values.T]


@given(
    st.integers(1, 20).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1), st.integers(1, n))),
    st.integers(0, 2**32),
)
def test_range_sum__any_range__is_that_of_a_sort(shape: tuple[int, int, int], seed: int) -> None:
    count, first, last = shape[0], min(shape[1], shape[2] - 1), max(shape[1] + 1, shape[2])
    values = np.random.default_rng(seed).integers(-(2**23), 2**23, (count, 9)) * 2**11
    assert summed(values, first, last) == expected(values, first, last)
    assert summed(values, first, last, np.int64, np.int64) == expected(values, first, last)


@pytest.mark.parametrize("count", [2, 3, 16, 63, NETWORK, NETWORK + 1, 100])
def test_range_sum__network_and_partition__agree(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(count).integers(-5, 5, (count, 50))  # many ties
    for first, last in {median.ranks(count), trimmed_mean.ranks(count, (count - 1) // 3)}:
        right = expected(values, first, last)
        assert summed(values, first, last) == right
        monkeypatch.setattr(order_statistics, "NETWORK", 0)
        assert summed(values, first, last) == right
        monkeypatch.undo()


def test_range_sum__minus_zero__is_plus_zero() -> None:
    held = RangeSum(1, 0, 1, np.float32, 1)
    held.rows(1)[:] = -0.0
    assert not np.signbit(held.into(np.empty(1))[0])


def test_range_sum__again__needs_no_new_buffer() -> None:
    held = RangeSum(3, 1, 2, np.float32, 4)
    for shift in (0, 10):
        held.rows(3)[:] = np.array([[1, 2, 3], [3, 1, 2], [2, 3, 1]]) + shift
        assert held.into(np.empty(3)).tolist() == [2 + shift] * 3


def test_block_size__a_large_cohort__holds_no_more_values() -> None:
    for count in (1, 16, 64, 1000, 4096):
        assert count * block_size(count) <= max(order_statistics.CELLS, 64 * count)
    assert block_size(16) == order_statistics.BLOCK


@pytest.mark.parametrize(("count", "ranks"), [(1, (0, 1)), (2, (0, 2)), (3, (1, 2)), (4, (1, 3)), (5, (2, 3))])
def test_median__ranks__are_the_middle(count: int, ranks: tuple[int, int]) -> None:
    assert median.ranks(count) == ranks


def test_trimmed_mean__nothing_trimmed__is_the_mean() -> None:
    values = np.random.default_rng(0).integers(-(2**34), 2**34, (5, 7))
    first, last = trimmed_mean.ranks(5, 0)
    assert summed(values, first, last, np.int64, np.int64) == values.sum(axis=0).tolist()
