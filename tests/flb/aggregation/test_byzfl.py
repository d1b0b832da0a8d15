# SPDX-License-Identifier: Apache-2.0
"""Against ByzFL, an independent implementation of the same rules in floating point; without it these tests fail.

Where the two differ by definition, the test says so and asks ours for ByzFL's choice: neighbours of Krum, the start of
the geometric median and of centered clipping. Of the package only the aggregators are loaded: the rest of it wants
torchvision and plotting. It imports torch, hence the mark.
"""

import importlib
import sys
import types
from importlib.metadata import distribution

import numpy as np
import pytest

from flb.aggregation import centered_clipping, geometric_median, nearest_neighbours
from flb.aggregation.affine import chain
from flb.aggregation.gram import squared_distances
from flb.spec_sections import AggregationSpec
from tests.rules import SCALE, applied, gram_of, honest, integer_vectors, squared_of

pytestmark = pytest.mark.model

COUNTS = [(5, 1), (7, 2), (10, 3), (11, 4)]
SEEDS = range(5)


@pytest.fixture(scope="module")
def byzfl() -> types.ModuleType:
    package = types.ModuleType("byzfl")
    package.__path__ = [str(distribution("byzfl").locate_file("byzfl"))]
    sys.modules["byzfl"] = package
    return importlib.import_module("byzfl.aggregators")


def exact(seed: int, count: int) -> np.ndarray:
    """Vectors that the ring holds exactly, with wrong ones among them."""
    values = honest(seed, count)
    values[0] += 5
    values[-1] *= -4
    return integer_vectors(values) / SCALE


def spec(rule: str, f: int, **more: int | str) -> AggregationSpec:
    return AggregationSpec(rule=rule, byzantine=f, weights="equal", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("count", "f"), COUNTS)
def test_coordinate_rules__random_vectors__are_those_of_byzfl(
    byzfl: types.ModuleType, count: int, f: int, seed: int
) -> None:
    values = exact(seed, count)
    vectors = integer_vectors(values)
    assert applied(spec("median", f), vectors) == pytest.approx(byzfl.Median()(values), abs=1e-12)
    assert applied(spec("trimmed_mean", f), vectors) == pytest.approx(byzfl.TrMean(f)(values), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("count", "f"), COUNTS)
def test_krum__its_number_of_neighbours__is_that_of_byzfl(
    byzfl: types.ModuleType, count: int, f: int, seed: int
) -> None:
    values = exact(seed, count)
    vectors, near = integer_vectors(values), count - f - 1
    assert applied(spec("krum", f, neighbours=near), vectors) == pytest.approx(byzfl.Krum(f)(values), abs=1e-12)
    found = applied(spec("multi_krum", f, neighbours=near), vectors)
    assert found == pytest.approx(byzfl.MultiKrum(f)(values), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [5, 10])
def test_geometric_median__its_start_at_zero__is_that_of_byzfl(byzfl: types.ModuleType, count: int, seed: int) -> None:
    values = exact(seed, count)
    pull = 1.0 / np.maximum(0.1, np.linalg.norm(values, axis=1))
    found = geometric_median.coefficients(squared_of(integer_vectors(values)), 4, 0.1 * SCALE, pull / chain(pull))
    assert found @ values == pytest.approx(byzfl.GeometricMedian(nu=0.1, T=5)(values), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_geometric_median__many_steps__converge_to_the_same_point(byzfl: types.ModuleType, seed: int) -> None:
    values = exact(seed, 11)
    found = applied(spec("geometric_median", 4, iterations=400), integer_vectors(values))
    assert found == pytest.approx(byzfl.GeometricMedian(nu=1e-6, T=2000)(values), abs=1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tau", [0.5, 2.0, 100.0])
def test_centered_clipping__its_start_and_radius__is_that_of_byzfl(
    byzfl: types.ModuleType, tau: float, seed: int
) -> None:
    values = exact(seed, 9)
    oracle, point = byzfl.CenteredClipping(L=3, tau=tau), np.full(9, 1 / 9)
    oracle.m = values.mean(axis=0)
    for _ in range(3):
        point = centered_clipping.clip_step(squared_of(integer_vectors(values)), point, tau * SCALE)
    assert point @ values == pytest.approx(oracle(values), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("count", "f"), COUNTS)
def test_nearest_neighbours__random_vectors__are_those_of_byzfl(
    byzfl: types.ModuleType, count: int, f: int, seed: int
) -> None:
    values = exact(seed, count)
    vectors = integer_vectors(values)
    mixture = nearest_neighbours.mixture(squared_distances(gram_of(vectors)), f)
    mixed = byzfl.NNM(f)(values)
    assert mixture.matrix @ values / mixture.denominator == pytest.approx(mixed, abs=1e-12)
    for rule, oracle in (("median", byzfl.Median()), ("trimmed_mean", byzfl.TrMean(f))):
        found = applied(spec(rule, f, mixing="nearest_neighbours"), vectors)
        assert found == pytest.approx(oracle(mixed), abs=1e-12)
    krum = applied(spec("krum", f, mixing="nearest_neighbours"), vectors)
    assert min(np.abs(krum - row).max() for row in mixed) < 1e-9, "Krum picks one of the mixed"
