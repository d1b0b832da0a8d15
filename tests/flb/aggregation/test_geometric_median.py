# SPDX-License-Identifier: Apache-2.0
"""The geometric median: the published vector, optimality, and degenerate rounds."""

import numpy as np
import pytest

from flb.aggregation import geometric_median
from flb.aggregation.affine import chain
from tests.rules import SCALE, honest, integer_vectors, result_of, squared_of

pytestmark = pytest.mark.unit


def test_geometric_median__vector_of_byzfl__from_zero_in_three_steps() -> None:
    """ByzFL starts at zero: that step is made here, since the iterate stays in the span of the updates."""
    values = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    pull = 1 / np.linalg.norm(values, axis=1)
    found = geometric_median.coefficients(squared_of(integer_vectors(values)), 2, 0.1 * SCALE, pull / pull.sum())
    assert found @ values == pytest.approx([3.78788764, 4.78788764, 5.78788764], abs=1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_geometric_median__summed_distance__is_least(seed: int) -> None:
    values = honest(seed)
    vectors = integer_vectors(values)
    found = result_of(geometric_median.weigh(squared_of(vectors)), vectors)

    def total(point: np.ndarray) -> float:
        return float(np.linalg.norm(values - point, axis=1).sum())

    directions = np.random.default_rng(seed).standard_normal((50, 5))
    assert all(total(found) <= total(found + 0.05 * d / np.linalg.norm(d)) for d in directions)


def test_geometric_median__equal_updates__is_their_exact_mean() -> None:
    vectors = integer_vectors(np.full((4, 3), 0.37))
    found = geometric_median.weigh(squared_of(vectors))
    assert len(set(found.weights)) == 1 and found.denominator == sum(found.weights)


def test_geometric_median__zero_updates__is_zero() -> None:
    vectors = integer_vectors(np.zeros((3, 2)))
    assert result_of(geometric_median.weigh(squared_of(vectors)), vectors).tolist() == [0, 0]


def test_coefficients__of_a_duplicate__are_equal() -> None:
    values = honest(3)
    values[5] = values[1]
    found = geometric_median.weigh(squared_of(integer_vectors(values))).weights
    assert found[5] == found[1]


def test_chain__order__is_that_of_the_index() -> None:
    assert chain(np.array([1.0, 2.0**-53, 2.0**-53])) == 1.0
    assert chain(np.array([2.0**-53, 2.0**-53, 1.0])) == 1.0 + 2.0**-52


def test_geometric_median__nearly_half_far_away__stays_with_the_majority() -> None:
    values = honest(6, 15)
    values[:7] = 400
    vectors = integer_vectors(values)
    found = result_of(geometric_median.weigh(squared_of(vectors)), vectors)
    assert float(np.abs(found).max()) < 4
