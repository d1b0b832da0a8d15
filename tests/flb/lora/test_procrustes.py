# SPDX-License-Identifier: Apache-2.0
"""The basis nearest to the adapter before: the product stays, and no other orthogonal change comes nearer."""

import numpy as np
import pytest

from flb.lora import procrustes
from tests.flb.lora.stacks import cohort

pytestmark = pytest.mark.unit


def test_align__product__stays() -> None:
    made = cohort()
    b, a, _ = made.combined()
    turned_b, turned_a = procrustes.align(b, a, made.b, made.a)
    assert np.allclose(turned_b @ turned_a, b @ a, rtol=0, atol=1e-11)


def test_align__rotated_copy__is_turned_back() -> None:
    made = cohort()
    rotation = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    b, a = procrustes.align(made.b @ rotation, rotation.T @ made.a, made.b, made.a)
    assert np.allclose(b, made.b) and np.allclose(a, made.a)


def test_align__any_other_rotation__is_not_nearer() -> None:
    made, random = cohort(), np.random.default_rng(4)
    b, a, _ = made.combined()
    b, a = procrustes.align(b, a, made.b, made.a)

    def away(rotation: np.ndarray) -> float:
        return float(np.linalg.norm(b @ rotation - made.b) ** 2 + np.linalg.norm(rotation.T @ a - made.a) ** 2)

    nearest = away(np.eye(4))
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            skew = random.standard_normal((4, 4)) * size
            assert away(np.linalg.qr(np.eye(4) + skew - skew.T)[0]) >= nearest - 1e-9


def test_align__float32_adapter_of_zeros__keeps_the_product() -> None:
    made = cohort()
    b, a, _ = made.combined()
    turned_b, turned_a = procrustes.align(b, a, np.zeros((40, 4), np.float32), made.a.astype(np.float32))
    assert np.allclose(turned_b @ turned_a, b @ a, rtol=0, atol=1e-11)
