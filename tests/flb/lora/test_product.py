# SPDX-License-Identifier: Apache-2.0
"""The best product of a rank: against dense decompositions, under every change of basis, in flat memory."""

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flb.errors import Fatal
from flb.lora import gram, mean_product, product
from tests.flb.lora.stacks import Array, Cohort, best, cohort, of_ends, spare_of

pytestmark = pytest.mark.unit

NEAR = 1e-12


def distance(one: Array, other: Array) -> float:
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-300))


@given(
    d=st.integers(3, 40), k=st.integers(3, 40), r=st.integers(1, 6), nodes=st.integers(1, 6), seed=st.integers(0, 99)
)
@settings(deadline=None, max_examples=60)
def test_truncate__any_shape__is_the_dense_svd_and_eckart_young(d: int, k: int, r: int, nodes: int, seed: int) -> None:
    made = cohort(d, k, r, nodes, seed=seed)
    b, a, cut = made.combined()
    whole = made.dense
    dense = np.linalg.svd(whole, compute_uv=False)
    count = min(r, dense.size)
    assert np.allclose(cut.values[:count], dense[:count], rtol=0, atol=1e-12 * dense[0])
    assert distance(b @ a, best(whole, r)) < 1e-9
    assert abs(np.sqrt(cut.tail) - np.linalg.norm(whole - b @ a)) < 1e-9 * dense[0]
    assert abs(cut.whole - np.linalg.norm(whole) ** 2) < 1e-9 * cut.whole


def test_factors__balanced__sorted_and_signed() -> None:
    b, a, cut = cohort().combined()
    assert np.allclose(b.T @ b, np.diag(cut.values[:4])) and np.allclose(a @ a.T, np.diag(cut.values[:4]))
    assert all(column[np.abs(column).argmax()] > 0 for column in b.T)


@pytest.mark.parametrize("size", [1.0, 1e2, 1e-2])
def test_combined__another_basis_for_each_node__changes_nothing(size: float) -> None:
    made, random = cohort(), np.random.default_rng(1)
    ends = []
    for b, a in made.ends:
        gauge = (np.eye(4) + 0.5 * random.standard_normal((4, 4))) * size
        ends.append((b @ gauge, np.linalg.solve(gauge, a)))
    other = of_ends(made, ends)
    b, a, _ = made.combined()
    gauged_b, gauged_a, _ = other.combined()
    assert distance(gauged_b @ gauged_a, b @ a) < 1e-10
    mean_b = lambda c: c.b + sum(s[0] * part for s, part in zip(c.taken, c.db, strict=True))  # noqa: E731
    mean_a = lambda c: c.a + sum(s[0] * part for s, part in zip(c.taken, c.da, strict=True))  # noqa: E731
    assert distance(mean_b(other) @ mean_a(other), mean_b(made) @ mean_a(made)) > 1e-2, (
        "the mean of factors does change"
    )


@pytest.mark.parametrize("power", [4, -4])
def test_combined__gauges_of_ten_thousand__stay_exact(power: int) -> None:
    made = cohort()
    ends = [(b * 10.0 ** (power * (i % 2)), a / 10.0 ** (power * (i % 2))) for i, (b, a) in enumerate(made.ends)]
    b, a, _ = of_ends(made, ends).combined()
    assert distance(b @ a, best(made.dense, 4)) < 1e-9


@pytest.mark.parametrize("nodes", [1, 2, 7])
def test_combined__all_nodes_equal__is_that_node(nodes: int) -> None:
    one = cohort(nodes=1)
    same = Cohort(one.b, one.a, one.db * nodes, one.da * nodes, tuple(range(1, nodes + 1)))
    b, a, cut = same.combined()
    assert distance(b @ a, one.ends[0][0] @ one.ends[0][1]) < NEAR
    assert cut.rank == 4 and cut.tail < 1e-20 * cut.whole


def test_combined__equal_a__is_the_mean_of_b() -> None:
    made = cohort()
    made = dataclasses.replace(made, da=(made.da[0],) * 5)
    b, a, _ = made.combined()
    mean = made.b + sum(s[0] * part for s, part in zip(made.taken, made.db, strict=True))
    assert distance(b @ a, mean @ made.ends[0][1]) < NEAR


def test_combined__first_round__b_is_zero_and_nothing_is_lost_of_rank_one_drift() -> None:
    made = dataclasses.replace(cohort(), b=np.zeros((40, 4)))
    b, a, _ = made.combined()
    assert distance(b @ a, best(made.dense, 4)) < NEAR


def test_combined__nobody_moved__is_the_adapter_itself() -> None:
    made = cohort(drift=0.0)
    b, a, cut = made.combined()
    assert distance(b @ a, made.b @ made.a) < NEAR and cut.rank == 4


def test_combined__no_product_at_all__keeps_rows_that_can_learn() -> None:
    made = dataclasses.replace(cohort(drift=0.0), b=np.zeros((40, 4)))
    b, a, cut = made.combined()
    assert cut.rank == 0 and not b.any() and np.array_equal(a, spare_of(made))


def test_combined__fewer_outputs_than_rank__leaves_no_dead_direction() -> None:
    made = cohort(d=3, r=8)
    b, a, cut = made.combined()
    assert cut.rank == 3 and not b[:, 3:].any()
    assert np.array_equal(a[3:], spare_of(made)[3:])
    assert distance(b @ a, made.dense) < NEAR, "rank 3 holds all of it"


def test_truncate__spectrum_of_a_million__is_kept() -> None:
    made = cohort()
    scale = np.diag([1.0, 1e-2, 1e-4, 1e-6])
    made = Cohort(
        made.b @ scale, made.a, tuple(part @ scale for part in made.db), (np.zeros_like(made.a),) * 5, made.weights
    )
    b, a, cut = made.combined()
    dense = np.linalg.svd(made.dense, compute_uv=False)
    assert cut.rank == 4 and abs(cut.values[3] - dense[3]) < 1e-6 * dense[3]
    assert distance(b @ a, made.dense) < NEAR


def test_shares__weight_zero__has_no_influence() -> None:
    made = cohort(nodes=3)
    weights = (*made.weights[:2], 0)
    with_it = dataclasses.replace(made, weights=weights)
    loud = dataclasses.replace(with_it, db=(*made.db[:2], made.db[2] * 1e3))
    without = Cohort(made.b, made.a, made.db[:2], made.da[:2], made.weights[:2])
    wanted = without.combined()
    for other in (with_it, loud):
        b, a, _ = other.combined()
        assert distance(b @ a, wanted[0] @ wanted[1]) < NEAR


def test_shares__ranks_differ__each_direction_has_the_mean_of_those_that_have_it() -> None:
    taken = mean_product.shares((1, 3, 4), (1, 2, 3), 4)
    assert [share.tolist() for share in taken] == [[0.125], [0.375, 3 / 7], [0.5, 4 / 7, 1.0]]


def test_combined__ranks_differ__is_the_banded_mean_of_products() -> None:
    made = cohort(ranks=(1, 2, 4), r=4)
    b, a, _ = made.combined()
    whole = np.zeros((40, 56))
    for h in range(4):
        total = sum(w for w, rank in zip(made.weights, made.ranks, strict=True) if rank > h)
        for weight, (bi, ai) in zip(made.weights, made.ends, strict=True):
            if bi.shape[1] > h:
                whole += weight / total * np.outer(bi[:, h], ai[h])
    assert distance(b @ a, best(whole, 4)) < NEAR


def test_combined__direction_that_no_node_has__stays() -> None:
    made = cohort(ranks=(1, 2), r=4, drift=0.0)
    b, a, _ = made.combined()
    assert distance(b @ a, made.b @ made.a) < NEAR


def test_combined__factors_padded_with_zeros__change_nothing() -> None:
    """A stack with columns of zeros has the same product, whatever their coefficients."""
    made = cohort(ranks=(2, 4, 3), r=4)
    coefficients, (left, right) = mean_product.target(made.taken, 4), made.grams
    pad = np.zeros((40, 2)), np.zeros((2, 56))
    wide_left, wide_right = [*made.left, pad[0]], [*made.right, pad[1]]
    wide = np.zeros((coefficients.shape[0] + 2,) * 2)
    wide[:-2, :-2], wide[-2:, -2:] = coefficients, 7.0
    cut = product.truncate(wide, gram.of_columns(wide_left), gram.of_rows(wide_right), 4)
    padded = product.factors(wide_left, wide_right, cut, 4, lambda: spare_of(made))
    plain = product.factors(
        made.left, made.right, product.truncate(coefficients, left, right, 4), 4, lambda: spare_of(made)
    )
    assert all(np.allclose(one, other, rtol=0, atol=1e-13) for one, other in zip(padded, plain, strict=True))


def test_truncate__order_of_nodes__changes_nothing() -> None:
    made = cohort()
    turned = Cohort(made.b, made.a, made.db[::-1], made.da[::-1], made.weights[::-1])
    for one, other in zip(made.combined()[:2], turned.combined()[:2], strict=True):
        assert np.allclose(one, other, rtol=0, atol=1e-12)


def test_shares__rate__moves_that_share_of_the_way_in_product_space() -> None:
    made = cohort()
    coefficients = mean_product.target(mean_product.shares(made.weights, made.ranks, 4, rate=0.25), 4)
    left, right = np.hstack(made.left), np.vstack(made.right)
    base = made.b @ made.a
    assert distance(left @ coefficients @ right, base + 0.25 * (made.dense - base)) < NEAR


@pytest.mark.parametrize(("energy", "rank"), [(1.0, 4), (0.9, 2), (0.5, 1), (0.0001, 1), (0.999, 3)])
def test_kept__energy__is_the_smallest_rank_that_holds_it(energy: float, rank: int) -> None:
    assert product.kept(np.array([3.0, 2.0, 1.0, 0.1]), 4, energy) == rank


def test_kept__values_that_tie__stay_together_up_to_the_rank() -> None:
    values = np.array([3.0, 2.0, 2.0 - 1e-9, 2.0 - 2e-9, 1.0])
    assert product.kept(values, 5, 0.6) == 4, "two would do"
    assert product.kept(values, 3, 0.6) == 3


def test_kept__values_lost_in_float32__are_zero() -> None:
    assert product.kept(np.array([1.0, 1e-7, 1e-8, 0.0]), 4, 1.0) == 2
    assert product.kept(np.zeros(3), 2, 1.0) == product.kept(np.zeros(0), 2, 1.0) == 0


def test_combined__energy__cuts_and_fills_up() -> None:
    made = cohort()
    b, a, cut = made.combined(energy=0.5)
    assert 0 < cut.rank < 4 and not b[:, cut.rank :].any()
    assert cut.whole - cut.tail >= 0.5 * cut.whole
    assert np.array_equal(a[cut.rank :], spare_of(made)[cut.rank :])


def test_truncate__infinite_adapter__is_told_in_a_sentence() -> None:
    made = cohort()
    made.b[3, 2] = np.inf
    with pytest.raises(Fatal, match="NaN or infinity"), np.errstate(invalid="ignore"):
        made.combined()


def test_combined__memory__holds_nothing_of_the_size_of_a_weight() -> None:
    d, k, r = 3000, 2000, 4
    random = np.random.default_rng(0)
    parts = [
        (random.standard_normal((d, r), dtype=np.float32), random.standard_normal((r, k), dtype=np.float32))
        for _ in range(6)
    ]
    left, right = [b for b, _ in parts], [a for _, a in parts]
    spare = np.zeros((r, k))
    taken = mean_product.shares((1,) * 5, (r,) * 5, r)
    tracemalloc.start()
    cut = product.truncate(mean_product.target(taken, r), gram.of_columns(left), gram.of_rows(right), r)
    product.factors(left, right, cut, r, lambda: spare)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < d * k, "not even a byte for each entry, where float64 takes eight"
