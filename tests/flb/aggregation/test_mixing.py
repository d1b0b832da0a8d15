# SPDX-License-Identifier: Apache-2.0
"""Mixing: exact matrices, distances of what is mixed, and weights on the way back."""

from fractions import Fraction

import numpy as np
import pytest

from flb.aggregation import bucketing, nearest_neighbours
from flb.aggregation.gram import squared_distances, with_origin
from flb.aggregation.mixture import LARGEST, Mixture
from flb.aggregation.weighing import Weighing
from flb.types import Step
from tests.rules import gram_of, honest, integer_vectors, result_of

pytestmark = pytest.mark.unit


def mixed(mixture: Mixture, vectors: np.ndarray) -> np.ndarray:
    return mixture.matrix @ vectors


def test_nearest_neighbours__vectors_of_byzfl__are_exact() -> None:
    vectors = integer_vectors(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    mixture = nearest_neighbours.mixture(squared_distances(gram_of(vectors)), 1)
    expected = np.array([[2.5, 3.5, 4.5], [2.5, 3.5, 4.5], [5.5, 6.5, 7.5]])
    assert np.array_equal(mixed(mixture, vectors), integer_vectors(expected) * mixture.denominator)


def test_nearest_neighbours__no_wrong_updates__is_the_mean() -> None:
    vectors = integer_vectors(honest(0))
    mixture = nearest_neighbours.mixture(squared_distances(gram_of(vectors)), 0)
    assert (mixed(mixture, vectors) == vectors.sum(axis=0)).all() and mixture.denominator == 7


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 9])
def test_bucketing__any_group_size__each_update_counts_once(size: int) -> None:
    mixture = bucketing.mixture(bucketing.order(bytes(32), Step(1), 7), size)
    assert (mixture.matrix.sum(axis=1) == mixture.denominator).all()
    assert ((mixture.matrix > 0).sum(axis=0) == 1).all()
    assert len(mixture.matrix) == bucketing.group_count(7, size)


def test_bucketing__order__is_public_and_differs_from_step_to_step() -> None:
    first = bucketing.order(bytes(32), Step(1), 6)
    assert first == bucketing.order(bytes(32), Step(1), 6) and sorted(first) == list(range(6))
    assert len({tuple(bucketing.order(bytes(32), Step(step), 12)) for step in range(20)}) == 20
    assert bucketing.order(bytes(32), Step(1), 12) != bucketing.order(bytes(31) + b"\x01", Step(1), 12)


@pytest.mark.parametrize("size", range(1, bucketing.LARGEST + 1))
def test_bucketing__largest_group__denominator_stays_in_proof(size: int) -> None:
    assert bucketing.mixture(list(range(2 * size - 1)), size).denominator <= LARGEST
    assert bucketing.group_count(bucketing.least_updates(3, size), size) == 3
    assert bucketing.group_count(bucketing.least_updates(3, size) - 1, size) == 2


@pytest.mark.parametrize("seed", range(10))
def test_squared__of_mixed_updates__is_exact_but_for_the_last_roundings(seed: int) -> None:
    random = np.random.default_rng(seed)
    vectors = random.integers(-(2**22), 2**22, (9, 5)) + 2**23 * (seed % 2)
    squared = squared_distances(gram_of(vectors))
    for mixture in (
        nearest_neighbours.mixture(squared, 3),
        bucketing.mixture(bucketing.order(bytes(32), Step(seed), 9), 2),
    ):
        rows = [[int(x) for x in row] for row in mixed(mixture, vectors)]
        found = mixture.squared(squared)
        for i, one in enumerate(rows):
            for j, other in enumerate(rows):
                exact = Fraction(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)), mixture.denominator**2)
                assert abs(Fraction(float(found[i, j])) - exact) <= exact / 2**51


def test_squared__largest_distances_and_denominator__stay_exact() -> None:
    count = 200
    gram = np.full((count, count), -(2**52)) + np.eye(count, dtype=np.int64) * 2**53
    squared = squared_distances(gram)  # every pair at 2^54: no real vectors, but the bound of the proof
    matrix = np.zeros((2, count), dtype=np.int64)
    matrix[0, 0] = matrix[1, 1] = LARGEST
    assert Mixture(matrix, LARGEST).squared(squared)[0, 1] == 2.0**54


def test_squared__distances_that_rounding_bent__are_not_below_zero() -> None:
    bent = np.array([[0, 0, 9], [0, 0, 4], [9, 4, 0]])  # 0 and 1 are one point, yet 9 and 4 away from 2
    mixture = Mixture(np.array([[3, 1, 0], [1, 3, 0], [2, 2, 0], [4, 0, 0], [0, 3, 1]]), 4)
    found = mixture.squared(bent)
    assert (found >= 0).all() and (found[:4, :4] == 0).all()
    triangle = np.array([[0, 1, 25], [1, 0, 1], [25, 1, 0]])  # no such triangle exists
    assert (Mixture(np.array([[2, 0, 2], [0, 4, 0]]), 4).squared(triangle) == 0).all()


def test_with_origin__norms__are_distances_to_it() -> None:
    vectors = integer_vectors(honest(4))
    mixture = nearest_neighbours.mixture(squared_distances(gram_of(vectors)), 2)
    found = mixture.with_origin().squared(squared_distances(with_origin(gram_of(vectors))))[:-1, -1]
    expected = (mixed(mixture, vectors).astype(float) ** 2).sum(axis=1) / mixture.denominator**2
    assert found == pytest.approx(expected, rel=1e-14)


def test_unmix__weights__give_the_same_sum() -> None:
    vectors = integer_vectors(honest(5))
    mixture = nearest_neighbours.mixture(squared_distances(gram_of(vectors)), 2)
    weighing = Weighing((3, 0, 1, 0, 0, 2, 5), 11)
    expected = result_of(weighing, mixed(mixture, vectors)) / mixture.denominator
    assert result_of(mixture.unmix(weighing), vectors) == pytest.approx(expected, rel=1e-15)
