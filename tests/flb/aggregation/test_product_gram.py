# SPDX-License-Identifier: Apache-2.0
"""Distances in product space: the definition, and that the length of a factor buys nothing."""

import numpy as np
import pytest

from flb.aggregation import product_gram
from flb.aggregation.product_gram import Unit, base_unit, gram_unit, module, square_bound, update_unit

pytestmark = pytest.mark.unit

RANK, OUTPUTS, INPUTS, NODES = 3, 17, 29, 5


def quantised(values: np.ndarray, unit: Unit) -> np.ndarray:
    return np.rint(values / unit.value)


def gram_of(
    b: np.ndarray, a: np.ndarray, updates: list[tuple[np.ndarray, np.ndarray]], norm_bound: int = 16
) -> np.ndarray:
    """The inner products of one module; base and updates in values."""
    unit_b, unit_a = base_unit(float(np.abs(b).max()), OUTPUTS), base_unit(float(np.abs(a).max()), INPUTS)
    unit = update_unit(norm_bound)
    columns = np.vstack([quantised(b, unit_b).T, *(quantised(db, unit).T for db, _ in updates)])
    rows = np.vstack([quantised(a, unit_a), *(quantised(da, unit) for _, da in updates)])
    return module(columns @ columns.T, rows @ rows.T, RANK, unit_b, unit_a, unit)


def draw(seed: int, scale: float = 0.01) -> tuple[np.ndarray, np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
    random = np.random.default_rng(seed)
    b, a = random.standard_normal((OUTPUTS, RANK)) * 0.1, random.standard_normal((RANK, INPUTS))
    pairs = [(random.standard_normal(b.shape) * scale, random.standard_normal(a.shape) * scale) for _ in range(NODES)]
    return b, a, pairs


@pytest.mark.parametrize("scale", [1e-4, 0.01, 0.5])
def test_module__inner_products__are_those_of_the_products(scale: float) -> None:
    b, a, updates = draw(1, scale)
    moved = [((b + db) @ (a + da) - b @ a).ravel() for db, da in updates]
    expected = np.array([[float(x @ y) for y in moved] for x in moved])
    assert np.abs(gram_of(b, a, updates) - expected).max() <= 1e-3 * np.abs(expected).max()


def test_module__first_step__where_b_is_zero() -> None:
    _, a, updates = draw(2)
    b = np.zeros((OUTPUTS, RANK))
    moved = [(db @ (a + da)).ravel() for db, da in updates]
    expected = np.array([[float(x @ y) for y in moved] for x in moved])
    assert np.abs(gram_of(b, a, updates) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_module__another_gauge__changes_no_distance() -> None:
    """Node 0 sends (B·G, G⁻¹·A): far away as factors, the same product."""
    b, a, updates = draw(3, 0.05)
    gauge = np.diag([20.0, 0.1, 3.0]) + 0.1
    new_b, new_a = (b + updates[0][0]) @ gauge, np.linalg.inv(gauge) @ (a + updates[0][1])
    turned = [(new_b - b, new_a - a), *updates[1:]]
    plain, gauged = gram_of(b, a, updates, 64), gram_of(b, a, turned, 64)
    assert np.abs(plain - gauged).max() <= 1e-4 * np.abs(plain).max()
    flat = [np.concatenate([db.ravel(), da.ravel()]) for db, da in turned]
    assert np.linalg.norm(flat[0]) > 20 * np.linalg.norm(flat[1]), "in factors it would be an outlier"


def test_module__equal_updates__have_equal_rows_to_the_bit() -> None:
    b, a, updates = draw(4)
    gram = gram_of(b, a, [*updates, updates[1]])
    assert (gram[1] == gram[-1]).all() and (gram == gram.T).all()


def test_module__permuted_updates__permute_the_matrix() -> None:
    b, a, updates = draw(5)
    order = [3, 1, 4, 0, 2]
    assert (gram_of(b, a, [updates[i] for i in order]) == gram_of(b, a, updates)[np.ix_(order, order)]).all()


@pytest.mark.parametrize("largest", [0.0, 1e-30, 0.3, 1.0, 7.5])
@pytest.mark.parametrize("length", [1, 2, 3, 4096, 14336])
def test_base_unit__a_vector_of_largest_entries__has_a_norm_within_the_bound(largest: float, length: int) -> None:
    norm = largest * length**0.5
    assert norm <= 2.0**26 * base_unit(largest, length).value <= max(8 * norm, 1e300 if not largest else 0)


def test_integers__any_admitted_update__stays_within_the_bound() -> None:
    b, a, updates = draw(6, 0.4)
    unit = gram_unit(16, square_bound(float(np.abs(a).max()), a.size), square_bound(float(np.abs(b).max()), b.size))
    found = product_gram.integers(gram_of(b, a, updates), unit)
    assert 0 < found.max() <= 2**52


@pytest.mark.parametrize("largest", [0.0, 1e-40, 0.3, 0.5, 1.0, 7.5])
def test_square_bound__entries_of_that_size__are_within(largest: float) -> None:
    assert 1000 * largest**2 <= square_bound(largest, 1000) <= 4000 * largest**2


def test_gram_unit__b_of_zeros__is_not_counted() -> None:
    assert gram_unit(1, 1.0, 0.0).exponent < gram_unit(1, 1.0, 1e6).exponent
