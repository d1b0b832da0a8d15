# SPDX-License-Identifier: Apache-2.0
"""Discrete Gaussian noise: its distribution, its streams, and what is refused."""

import math
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flb.delta import BLOCK, Int64
from flb.errors import Refused
from flb.privacy.discrete_gaussian import Noise, Stage, aes_ctr, stage_key, stages_of, standard_deviation
from flb.privacy.gaussian_table import make_table

pytestmark = pytest.mark.unit

COUNT = 1 << 20
KEY = bytes(range(32))


def excess(observed: NDArray[np.int64], expected: NDArray[np.float64]) -> float:
    """By how many of its standard deviations the chi-square statistic lies above its mean; cells below 10 are pooled."""
    rare = expected < 10
    cells = [*zip(observed[~rare], expected[~rare], strict=True), (observed[rare].sum(), expected[rare].sum())]
    cells = [(seen, mean) for seen, mean in cells if mean > 0]
    statistic, freedom = sum((seen - mean) ** 2 / mean for seen, mean in cells), len(cells) - 1
    return float((statistic - freedom) / math.sqrt(2 * freedom))


def pmf(variance: float, reach: int) -> NDArray[np.float64]:
    """The discrete Gaussian on -reach..reach."""
    weight = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * variance))
    return weight / weight.sum()


def stage(variance: Fraction) -> Stage:
    return Stage(make_table(variance), *(aes_ctr(stage_key(KEY, 0, purpose)) for purpose in (b"a", b"b", b"c")))


def drawn(sigma: Fraction, count: int = COUNT, key: bytes = KEY) -> Int64:
    values = np.zeros(count, dtype=np.int64)
    Noise(sigma, key).add(values)
    return values


@pytest.mark.parametrize("variance", [Fraction(1, 4), Fraction(4), Fraction(128**2), Fraction(299**2)])
def test_stage__a_million_draws__are_the_discrete_gaussian(variance: Fraction) -> None:
    source = stage(variance)
    values = np.concatenate([source.draw(BLOCK).astype(np.int64) for _ in range(COUNT // BLOCK)])
    reach = int(14 * math.sqrt(variance)) + 1
    assert excess(np.bincount(values + reach, minlength=2 * reach + 1), COUNT * pmf(float(variance), reach)) < 5


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_chi_square__rounded_continuous_gaussian__fails(sigma: float) -> None:
    """Its variance is larger by 1/12: a million draws show that up to a deviation of about 3."""
    values = np.rint(np.random.default_rng(1).normal(0, sigma, COUNT)).astype(np.int64)
    reach = int(14 * sigma) + 1
    assert excess(np.bincount(values + reach, minlength=2 * reach + 1), COUNT * pmf(sigma**2, reach)) > 20


@pytest.mark.parametrize("sigma", [Fraction(4096), Fraction(69_585_000), Fraction(2**40) + Fraction(1, 3)])
def test_noise__a_million_draws__have_shape_variance_and_free_stages(sigma: Fraction) -> None:
    values = drawn(sigma)
    edges = np.linspace(-4, 4, 201)
    below = np.array([math.erfc(-edge / math.sqrt(2)) / 2 for edge in (-math.inf, *edges, math.inf)])
    cells = np.searchsorted(edges, values / float(sigma))
    assert excess(np.bincount(cells, minlength=202), COUNT * np.diff(below)) < 5
    assert abs(values.std() / float(sigma) - 1) < 5 / math.sqrt(2 * COUNT)
    assert abs(values.mean()) < 5 * float(sigma) / math.sqrt(COUNT)
    base = noise_base(sigma)
    for modulus in (base - 1, base, base + 1):  # stages that hang together leave a comb
        assert excess(np.bincount(values % modulus, minlength=modulus), np.full(modulus, COUNT / modulus)) < 5


def noise_base(sigma: Fraction) -> int:
    return stages_of(sigma).base


def test_stages__one_key_for_all__leave_a_comb() -> None:
    """What keys of their own prevent: the same number in both stages gives multiples of K + 1 alone."""
    noise, values = Noise(Fraction(4096), KEY), np.zeros(1000, dtype=np.int64)
    noise._stages[1] = Noise(Fraction(4096), KEY)._stages[0]
    noise.add(values)
    assert (values % (noise.stages.base + 1) == 0).all()


@settings(max_examples=20)
@given(st.lists(st.integers(1, 3 * BLOCK // 2), min_size=1, max_size=5))
def test_noise__cut_into_any_calls__is_the_same_stream(sizes: list[int]) -> None:
    whole, parts = drawn(Fraction(5_000), sum(sizes)), Noise(Fraction(5_000), KEY)
    start = 0
    for size in sizes:
        values = np.full(size, 7, dtype=np.int64)
        parts.add(values)
        assert (values - 7 == whole[start : start + size]).all()
        start += size


def test_noise__other_key__is_other_noise() -> None:
    one, other = drawn(Fraction(4096)), drawn(Fraction(4096), key=bytes(32))
    assert abs(float(np.corrcoef(one, other)[0, 1])) < 5 / math.sqrt(COUNT)


def test_noise__fixed_key__gives_fixed_values() -> None:
    """A crash must find the same noise again, also after an update of this program."""
    assert drawn(Fraction(4096), 8).tolist() == GOLDEN_4096
    assert drawn(Fraction(2**33), 4).tolist() == GOLDEN_2_33


GOLDEN_4096 = [-5302, -1479, -4528, -324, 2077, -3140, -1104, 1536]
GOLDEN_2_33 = [-7121378833, -4758670002, -4420134918, 5577426132]


def test_stage__first_bits_tie__draws_on() -> None:
    """The words and the next bits are those of a threshold: the last 64 bits decide, on either side of it."""
    table = make_table(Fraction(128**2))
    threshold = table.thresholds[len(table.thresholds) // 2]
    head, tail = threshold >> 64, threshold & (2**64 - 1)
    words = struct.pack("<H", head >> 48)
    more = struct.pack("<Q", (head & (2**48 - 1)) << 16)
    for last, value in ((tail - 1, 0), (tail, 1)):
        bits = (words, more, last.to_bytes(8, "little"))
        source = Stage(table, *((lambda count, raw=raw: memoryview(raw)) for raw in bits))  # type: ignore[misc]
        assert source.draw(1).tolist() == [table.first + len(table.thresholds) // 2 + value]


@given(st.fractions(4096, 2**48 - 1))
def test_stages__any_deviation__meet_it_exactly_within_the_bounds(sigma: Fraction) -> None:
    stages = stages_of(sigma)
    assert stages.variance * sum(stages.base ** (2 * j) for j in range(stages.count)) == sigma**2
    assert 128**2 <= stages.variance < 300**2 and 8 <= stages.base <= 32
    assert stages.variance / stages.base**2 >= 16


@pytest.mark.parametrize("sigma", [Fraction(4095), Fraction(0), Fraction(-5000), Fraction(2**48)])
def test_stages__out_of_reach__are_refused(sigma: Fraction) -> None:
    with pytest.raises(Refused, match="ring units"):
        stages_of(sigma)


@pytest.mark.parametrize(("z", "norm"), [(0.0, 1.0), (1.0, -1.0), (float("inf"), 1.0), (1.0, float("nan"))])
def test_standard_deviation__no_number__is_refused(z: float, norm: float) -> None:
    with pytest.raises(Refused, match="no number above 0"):
        standard_deviation(z, norm, 32)


def test_standard_deviation__decimals__are_exact() -> None:
    assert standard_deviation(0.5, 3.0, 32) == 3 << 31


def test_key__wrong_length__is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Noise(Fraction(4096), bytes(16))
