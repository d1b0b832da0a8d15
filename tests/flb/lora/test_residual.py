# SPDX-License-Identifier: Apache-2.0
"""What the mean of factors misses: the covariance identity, its bounds, and the frozen part that holds it."""

import numpy as np
import pytest

from flb.lora import gram, mean_product, product, residual
from tests.flb.lora.stacks import Array, Cohort, best, cohort

pytestmark = pytest.mark.unit


def mean_of_factors(made: Cohort) -> tuple[Array, Array]:
    share = [float(taken[0]) for taken in made.taken]
    b = made.b + sum(p * part for p, part in zip(share, made.db, strict=True))
    return b, made.a + sum(p * part for p, part in zip(share, made.da, strict=True))


def test_residual__covariance__is_what_the_mean_misses() -> None:
    made = cohort()
    b, a = mean_of_factors(made)
    share = [float(taken[0]) for taken in made.taken]
    spread = sum(p * (bi - b) @ (ai - a) for p, (bi, ai) in zip(share, made.ends, strict=True))
    stacked = np.hstack(made.left) @ mean_product.residual(made.taken, 4) @ np.vstack(made.right)
    assert np.allclose(spread, made.dense - b @ a, rtol=0, atol=1e-12)
    assert np.allclose(stacked, spread, rtol=0, atol=1e-12)
    values = np.linalg.svd(stacked, compute_uv=False)
    assert np.count_nonzero(values > 1e-12) == 16, "rank (K - 1)·r"


def test_residual__equal_factor__is_zero() -> None:
    made = cohort()
    for equal in (
        Cohort(made.b, made.a, made.db[:1] * 5, made.da, made.weights),
        Cohort(made.b, made.a, made.db, made.da[:1] * 5, made.weights),
    ):
        left, right = equal.grams
        assert gram.square(mean_product.residual(equal.taken, 4), left, right) < 1e-20


def test_residual__rate__is_still_exact() -> None:
    made, rate = cohort(), 0.5
    taken = mean_product.shares(made.weights, made.ranks, 4, rate)
    b = made.b + sum(p[0] * part for p, part in zip(taken, made.db, strict=True))
    a = made.a + sum(p[0] * part for p, part in zip(taken, made.da, strict=True))
    wanted = made.b @ made.a + rate * (made.dense - made.b @ made.a) - b @ a
    left, right = np.hstack(made.left), np.vstack(made.right)
    assert np.allclose(left @ mean_product.residual(taken, 4) @ right, wanted, rtol=0, atol=1e-12)


def test_coefficients__frozen_part_before__adds_up_and_is_cut_to_its_rank() -> None:
    made, random = cohort(), np.random.default_rng(8)
    frozen_b, frozen_a = random.standard_normal((40, 3)) * 0.1, random.standard_normal((3, 56)) * 0.1
    left, right = [*made.left, frozen_b], [*made.right, frozen_a]
    b, a = mean_of_factors(made)
    whole = made.dense - b @ a + frozen_b @ frozen_a
    for rank in (3, 19):  # 19 = (5 - 1)·4 + 3 holds all of it
        cut = product.truncate(
            residual.coefficients(made.taken, 4, 3), gram.of_columns(left), gram.of_rows(right), rank
        )
        f_b, f_a = product.factors(left, right, cut, rank, lambda rank=rank: np.zeros((rank, 56)))
        assert np.allclose(f_b @ f_a, best(whole, rank), rtol=0, atol=1e-12)
    assert np.allclose(b @ a + f_b @ f_a, made.dense + frozen_b @ frozen_a, rtol=0, atol=1e-12), "exact at full rank"
