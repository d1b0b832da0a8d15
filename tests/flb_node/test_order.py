# SPDX-License-Identifier: Apache-2.0
"""The walk through the data: every epoch has each example once, rounds go on where the last one ended."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb_node.order import window

pytestmark = pytest.mark.unit


@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_window__round_after_round__epochs_that_hold_each_example_once(records: int, seed: int, count: int) -> None:
    walked = [index for first in range(0, 3 * records, count) for index in window(records, seed, first, count)]
    for epoch in range(3):
        assert sorted(walked[epoch * records : (epoch + 1) * records]) == list(range(records))


def test_window__seed_and_epoch__another_order() -> None:
    orders = {tuple(window(40, seed, first, 40)) for seed in (1, 2) for first in (0, 40)}
    assert len(orders) == 4
    assert window(5, 7, 3, 4) == window(5, 7, 0, 10)[3:7]
