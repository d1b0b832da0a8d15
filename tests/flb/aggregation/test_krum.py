# SPDX-License-Identifier: Apache-2.0
"""Krum and Multi-Krum: scores, ties, neighbours, and the published vectors."""

import numpy as np
import pytest

from flb.aggregation import krum, multi_krum
from tests.rules import honest, integer_vectors, result_of, squared_of

pytestmark = pytest.mark.unit

LADDER = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]])


def test_multi_krum__vectors_of_byzfl__with_its_neighbours_and_selection() -> None:
    vectors = integer_vectors(LADDER)
    found = multi_krum.weigh(squared_of(vectors), 1, neighbours=1, selected=2)
    assert result_of(found, vectors).tolist() == [2.5, 3.5, 4.5]


def test_scores__neighbours__are_added_from_the_nearest() -> None:
    squared = squared_of(integer_vectors(np.array([[0.0], [1.0], [3.0], [10.0]]))) / 2.0**32
    assert krum.scores(squared, 2).tolist() == [10.0, 5.0, 13.0, 130.0]


@pytest.mark.parametrize("seed", range(20))
def test_krum__scores__are_those_of_the_definition(seed: int) -> None:
    values = honest(seed, 9)
    near = krum.neighbour_count(9, 2)
    assert near == 5
    expected = [sorted(float(((x - y) ** 2).sum()) for y in values)[1 : near + 1] for x in values]
    assert krum.best(squared_of(integer_vectors(values)), near, 1) == [int(np.argmin([sum(row) for row in expected]))]


def test_krum__neighbours__change_the_choice_in_some_draws() -> None:
    differ = 0
    for seed in range(200):
        squared = squared_of(integer_vectors(honest(seed, 10)))
        differ += krum.weigh(squared, 3) != krum.weigh(squared, 3, neighbours=6)
    assert 15 <= differ <= 60, "n - f - 2 of the paper and n - f - 1 of ByzFL are two rules"


def test_krum__equal_updates__the_first_in_node_order_wins() -> None:
    vectors = integer_vectors(np.ones((5, 3)))
    assert krum.weigh(squared_of(vectors), 1).weights == (1, 0, 0, 0, 0)
    assert multi_krum.weigh(squared_of(vectors), 1).weights == (1, 1, 1, 1, 0)
    assert multi_krum.weigh(squared_of(vectors), 1, selected=2).weights == (1, 1, 0, 0, 0)


def test_krum__outliers__are_never_chosen() -> None:
    for seed in range(20):
        values = honest(seed, 9)
        values[[0, 4]] *= 100
        found = multi_krum.weigh(squared_of(integer_vectors(values)), 2)
        assert found.weights[0] == found.weights[4] == 0 and found.denominator == 7
