# SPDX-License-Identifier: Apache-2.0
"""Centered clipping: one step against its definition, and degenerate rounds."""

import numpy as np
import pytest

from flb.aggregation import centered_clipping
from tests.rules import SCALE, honest, integer_vectors, result_of, squared_of

pytestmark = pytest.mark.unit


def test_clip_step__a_wide_radius__is_the_mean() -> None:
    """The vector that ByzFL publishes for tau = 100."""
    values = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    found = centered_clipping.clip_step(squared_of(integer_vectors(values)), np.array([1.0, 0, 0]), 100 * SCALE)
    assert found @ values == pytest.approx([4, 5, 6], abs=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_clip_step__any_start__is_the_definition(seed: int) -> None:
    values, start = honest(seed), np.random.default_rng(seed).dirichlet(np.ones(7))
    point = start @ values
    away = np.linalg.norm(values - point, axis=1)
    tau = float(np.sort(away)[3])
    expected = point + ((values - point) * np.minimum(1, tau / away)[:, None]).mean(axis=0)
    for found in (
        centered_clipping.clip_step(squared_of(integer_vectors(values)), start, tau * SCALE),
        centered_clipping.clip_step(squared_of(integer_vectors(values)), start),
    ):
        assert found @ values == pytest.approx(expected, abs=1e-4)


def test_centered_clipping__equal_updates__is_their_exact_mean() -> None:
    vectors = integer_vectors(np.full((4, 3), 0.37))
    found = centered_clipping.weigh(squared_of(vectors))
    assert len(set(found.weights)) == 1


def test_centered_clipping__a_majority_of_equal_updates__leaves_others_out() -> None:
    values = np.ones((5, 3))
    values[1], values[3] = 500, -500
    vectors = integer_vectors(values)
    assert result_of(centered_clipping.weigh(squared_of(vectors)), vectors) == pytest.approx(1, abs=1e-3)


def test_centered_clipping__huge_outliers__move_it_by_a_radius_at_most() -> None:
    values = honest(1, 10)
    clean = integer_vectors(values)
    inside = result_of(centered_clipping.weigh(squared_of(clean)), clean)
    values[[0, 5, 9]] = 400
    vectors = integer_vectors(values)
    found = result_of(centered_clipping.weigh(squared_of(vectors)), vectors)
    assert float(np.linalg.norm(found - inside)) < 6, "honest vectors have lengths of about 2"
