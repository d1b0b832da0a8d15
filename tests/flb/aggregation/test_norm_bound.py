# SPDX-License-Identifier: Apache-2.0
"""Norm bound: the definition, the weighted mean where nothing is long, and the automatic bound."""

import numpy as np
import pytest

from flb.aggregation import norm_bound
from tests.rules import SCALE, honest, integer_vectors, result_of

pytestmark = pytest.mark.unit


def test_norm_bound__nothing_is_longer__is_the_weighted_mean() -> None:
    found = norm_bound.weigh(np.array([1.0, 2, 3]), (7, 65536, 1), factor=1.5)
    assert found == ((7, 65536, 1), 65544)


@pytest.mark.parametrize("factor", [0.5, 1.2, 0.0])
def test_norm_bound__long_updates__are_scaled_to_the_bound(factor: float) -> None:
    values, weights = honest(2), np.arange(1, 8)
    vectors = integer_vectors(values)
    norms = np.linalg.norm(values, axis=1)
    longest = (factor or 1.0) * np.sort(norms)[3]
    expected = (weights[:, None] * values * np.minimum(1, longest / norms)[:, None]).sum(axis=0) / weights.sum()
    found = norm_bound.weigh(norms * SCALE, tuple(weights.tolist()), factor)
    assert result_of(found, vectors) == pytest.approx(expected, abs=1e-4)


def test_norm_bound__one_huge_update__counts_as_one_of_the_bound() -> None:
    found = norm_bound.weigh(np.array([1.0, 1.0, 1e9]), (1, 1, 1))
    assert found.weights[2] == 0 and found.denominator == 2**20


def test_norm_bound__zero_updates__are_zero() -> None:
    assert norm_bound.weigh(np.zeros(3), (1, 1, 1)) == ((1, 1, 1), 3)
    assert norm_bound.weigh(np.array([0.0, 0.0, 5.0]), (1, 1, 1)).weights[2] == 0
