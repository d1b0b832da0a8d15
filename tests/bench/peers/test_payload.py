# SPDX-License-Identifier: Apache-2.0
"""The payload is the adapter that it claims to be, and a wrong average shows."""

import pytest

from bench.peers import payload

pytestmark = pytest.mark.unit


def test_shapes__full_size__is_the_adapter_of_the_model() -> None:
    shapes = payload.shapes(160)
    assert len(shapes) == len({name for name, _ in shapes}) == 448
    assert sum(rows * columns for _, (rows, columns) in shapes) == 41_943_040
    assert payload.payload_mib(160) == 160.0


@pytest.mark.parametrize("mib", [5, 20, 320])
def test_shapes__whole_blocks__have_exactly_that_size(mib: int) -> None:
    assert payload.payload_mib(mib) == mib
    assert len(payload.shapes(mib)) == 14 * mib // 5


def test_shapes__less_than_a_block__is_one_block() -> None:
    assert payload.payload_mib(1) == 5.0


def test_expected__nodes_adding_their_numbers__is_the_average_of_what_they_send() -> None:
    value = payload.start(7)
    for _ in range(3):
        value = sum(value + number for number in range(1, 5)) / 4
    assert payload.expected(7, nodes=4, rounds=3) == value


def test_expected__a_node_missing__differs() -> None:
    three_of_four = payload.start(0) + (1 + 2 + 3) / 3
    assert payload.expected(0, nodes=4, rounds=1) != three_of_four
