# SPDX-License-Identifier: Apache-2.0
"""The reported distance from the ideal mean, against dense matrices."""

import numpy as np
import pytest

from flb.lora import gap, mean_product, product, residual
from flb.lora.gap import Gap
from tests.flb.lora.stacks import cohort
from tests.flb.lora.test_residual import mean_of_factors

pytestmark = pytest.mark.unit


def test_of_factors__random_drift__is_the_dense_figure() -> None:
    made = cohort()
    b, a = mean_of_factors(made)
    found = gap.of_factors(made.taken, 4, *made.grams)
    wanted = np.linalg.norm(made.dense - b @ a) / np.linalg.norm(made.dense - made.b @ made.a)
    assert abs(found.relative - wanted) < 1e-10 and found.lost_energy == 0.0


def test_of_factors__tiny_drift__keeps_its_digits() -> None:
    """The gap is of second order in the drift; a difference of two norms would have lost it."""
    small, smaller = (gap.of_factors(c.taken, 4, *c.grams).relative for c in (cohort(drift=1e-5), cohort(drift=1e-6)))
    assert abs(small / smaller - 10) < 1e-3


def test_of_factors__residual__misses_what_its_cut_lost() -> None:
    made = cohort()
    cut = product.truncate(residual.coefficients(made.taken, 4, 0), *made.grams, 3)
    found = gap.of_factors(made.taken, 4, *made.grams, cut)
    assert found.missed == found.lost == cut.tail and found.whole == cut.whole
    assert found.relative < gap.of_factors(made.taken, 4, *made.grams).relative


def test_of_product__random_drift__is_the_dense_figure() -> None:
    made = cohort()
    b, a, cut = made.combined()
    found = gap.of_product(made.taken, 4, *made.grams, cut)
    missed = np.linalg.norm(made.dense - b @ a)
    assert abs(found.relative - missed / np.linalg.norm(made.dense - made.b @ made.a)) < 1e-10
    assert abs(found.lost_energy - (missed / np.linalg.norm(made.dense)) ** 2) < 1e-12
    move = np.hstack(made.left) @ mean_product.move(made.taken, 4) @ np.vstack(made.right)
    assert np.allclose(move, made.dense - made.b @ made.a, rtol=0, atol=1e-12)


def test_gap__modules__add_up_as_squares() -> None:
    both = Gap(9.0, 100.0, 1.0, 10.0) + Gap(16.0, 525.0, 0.0, 10.0)
    assert both.figures == {"gap": 0.2, "lost_energy": 0.05}
    assert Gap().figures == {"gap": 0.0, "lost_energy": 0.0}


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_figures__adapter_that_is_not_finite__has_none(value: float) -> None:
    made = cohort()
    made.b[0, 0] = value
    with np.errstate(invalid="ignore"):
        assert gap.of_factors(made.taken, 4, *made.grams).figures == {}
