# SPDX-License-Identifier: Apache-2.0
"""The estimated gap: near the exact one, zero where that is, and without the cohort in memory."""

import tracemalloc

import numpy as np
import pytest

from flb.lora import gap
from flb.lora.gap import Gap
from flb.lora.gap_sketch import COLUMNS, Sketch, signs_of
from tests.flb.lora.stacks import Cohort, cohort

pytestmark = pytest.mark.unit


def sketched(made: Cohort) -> Gap:
    sketch = Sketch(made.b.astype(np.float32), made.a.astype(np.float32), signs_of(made.a.shape[1]))
    for share, db, da in zip(made.taken, made.db, made.da, strict=True):
        sketch.add(float(share[0]), db.astype(np.float32), da.astype(np.float32))
    return sketch.gap


def test_gap__many_modules__is_near_the_exact_one() -> None:
    rounds = [cohort(seed=seed) for seed in range(40)]
    estimate = sum((sketched(made) for made in rounds), Gap())
    exact = sum((gap.of_factors(made.taken, 4, *made.grams) for made in rounds), Gap())
    assert abs(estimate.relative / exact.relative - 1) < 0.05
    assert abs(estimate.moved / exact.moved - 1) < 0.1 and abs(estimate.missed / exact.missed - 1) < 0.1


def test_gap__equal_nodes__is_zero() -> None:
    made = cohort()
    same = Cohort(made.b, made.a, made.db[:1] * 5, made.da[:1] * 5, made.weights)
    assert sketched(same).relative < 1e-12


def test_signs_of__larger__begins_with_the_smaller() -> None:
    """So all modules may share the largest one's."""
    signs = signs_of(100)
    assert signs.shape == (100, COLUMNS) and set(np.unique(signs)) == {-1.0, 1.0}
    assert np.array_equal(signs[:7], signs_of(7)) and abs(signs.mean()) < 0.1


def test_add__more_nodes__take_no_more_memory() -> None:
    random = np.random.default_rng(0)
    b, a = random.standard_normal((500, 4), dtype=np.float32), random.standard_normal((4, 300), dtype=np.float32)
    peaks = []
    for nodes in (2, 50):
        sketch, signs = None, signs_of(300)
        tracemalloc.start()
        sketch = Sketch(b, a, signs)
        for _ in range(nodes):
            sketch.add(1 / nodes, b, a)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= peaks[0] + 4096
