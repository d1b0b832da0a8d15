# SPDX-License-Identifier: Apache-2.0
"""Weighted sums: order, claims, and the exact value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.aggregation.mean import weight_of, weighted_sum

pytestmark = pytest.mark.unit

UPDATES = st.lists(
    st.tuples(st.integers(1, 65536), st.lists(st.integers(-(2**34), 2**34), min_size=3, max_size=3)),
    min_size=1,
    max_size=8,
)


@given(UPDATES, st.randoms())
def test_weighted_sum__any_order__is_the_exact_integer_sum(
    updates: list[tuple[int, list[int]]], random: object
) -> None:
    shuffled = list(updates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for order in (updates, shuffled):
        blocks = [(weight, np.array(values, dtype=np.int64)) for weight, values in order]
        total = weighted_sum(blocks, np.empty(3, dtype=np.int64))
        assert [int(x) for x in total] == [sum(w * v[i] for w, v in updates) for i in range(3)]
        blocks = [(weight, np.array(values, dtype=np.float64)) for weight, values in order]
        total = weighted_sum(blocks, np.empty(3, dtype=np.float64))  # eight full weights reach 2^53 and no more
        assert [int(x) for x in total] == [sum(w * v[i] for w, v in updates) for i in range(3)]


def test_weighted_sum__minus_zeros_in_float64__is_plus_zero() -> None:
    total = weighted_sum([(2, np.array([-0.0])), (3, np.array([-0.0]))], np.empty(1))
    assert not np.signbit(total[0])


def test_weight_of__claims_beyond_the_registered_records__change_nothing() -> None:
    assert weight_of(1000, 100, 65536) == weight_of(100, 100, 65536) == 100
    assert weight_of(10, 100, 65536) == 10
    assert weight_of(10**9, 10**9, 65536) == 65536
