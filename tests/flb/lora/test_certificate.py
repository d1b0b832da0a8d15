# SPDX-License-Identifier: Apache-2.0
"""What stands as the best product, and every way of publishing something else."""

import numpy as np
import pytest

from flb.lora import certificate, gram, mean_product, procrustes
from tests.flb.lora.stacks import Array, Cohort, cohort, spare_of

pytestmark = pytest.mark.unit


def judged(made: Cohort, b: Array, a: Array, energy: float = 1.0, ordered: bool = True) -> certificate.Certificate:
    left, right = gram.of_columns([*made.left, b]), gram.of_rows([*made.right, a])
    spare = (spare_of(made) ** 2).sum(axis=1)
    return certificate.check(mean_product.target(made.taken, made.r), left, right, made.r, energy, spare, ordered)


@pytest.mark.parametrize(
    "made", [cohort(), cohort(d=3, r=8), cohort(nodes=1), cohort(ranks=(1, 2, 4)), cohort(drift=0.0)]
)
@pytest.mark.parametrize("energy", [1.0, 0.7])
def test_check__published_in_float32__is_accepted(made: Cohort, energy: float) -> None:
    b, a, cut = made.combined(energy)
    found = judged(made, b.astype(np.float32), a.astype(np.float32), energy)
    assert found.accepted and abs(found.error - cut.tail) <= 1e-10 * found.whole


def test_check__aligned__is_accepted_without_order_alone() -> None:
    made = cohort()
    b, a, _ = made.combined()
    b, a = procrustes.align(b, a, made.b, made.a)
    assert judged(made, b, a, ordered=False).accepted
    assert not judged(made, b, a).accepted


@pytest.mark.parametrize("turn", ["order of S", "swapped", "by a hundredth"])
def test_check__aligned__another_basis_of_the_product__is_refused(turn: str) -> None:
    made = cohort()
    b, a, _ = made.combined()
    near_b, near_a = procrustes.align(b, a, made.b, made.a)
    match turn:
        case "swapped":
            b, a = near_b[:, ::-1], near_a[::-1]
        case "by a hundredth":
            rotation = np.eye(made.r)
            rotation[:2, :2] = [[np.cos(0.01), -np.sin(0.01)], [np.sin(0.01), np.cos(0.01)]]
            b, a = near_b @ rotation, rotation.T @ near_a
    assert np.allclose(b @ a, near_b @ near_a, rtol=0, atol=1e-12)
    assert not judged(made, b, a, ordered=False).accepted


def test_check__mean_of_factors__is_refused() -> None:
    made = cohort(drift=1.0)
    b = made.b + sum(p[0] * part for p, part in zip(made.taken, made.db, strict=True))
    a = made.a + sum(p[0] * part for p, part in zip(made.taken, made.da, strict=True))
    assert not judged(made, b, a, ordered=False).accepted


@pytest.mark.parametrize("change", ["scaled", "entry", "transplanted", "zeros", "nan", "infinite"])
def test_check__tampered__is_refused(change: str) -> None:
    made = cohort()
    b, a, _ = made.combined()
    match change:
        case "scaled":
            b = b * 1.001
        case "entry":
            b[0, 0] += 0.05
        case "transplanted":
            b, a, _ = cohort(seed=1).combined()
        case "zeros":
            b = np.zeros_like(b)
        case "nan":
            a[0, 0] = np.nan
        case "infinite":
            a[0, 0] = np.inf
    with np.errstate(invalid="ignore"):
        for ordered in (True, False):
            assert not judged(made, b, a, ordered=ordered).accepted


@pytest.mark.parametrize("size", [2.0, 1e6])
def test_check__same_product_in_another_basis__is_refused(size: float) -> None:
    made = cohort()
    b, a, _ = made.combined()
    found = judged(made, b * size, a / size)
    assert not found.accepted and not found.balanced
    assert not judged(made, b * size, a / size, ordered=False).accepted
    turned = np.array([1, 0, 2, 3])
    assert not judged(made, b[:, turned], a[turned]).accepted, "nodes of lower rank take the first directions"


def test_check__cut_deeper_than_the_run_says__is_refused() -> None:
    made = cohort()
    b, a, _ = made.combined()
    b[:, 3], a[3] = 0.0, spare_of(made)[3]
    assert not judged(made, b, a).accepted
