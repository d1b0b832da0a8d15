# SPDX-License-Identifier: Apache-2.0
"""Adaptive clipping: the right sign, the right quantile, and a split that adds up."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.privacy.adaptive_clip import BIT_UNITS, next_norm, share_within, split, split_with
from flb.privacy.discrete_gaussian import Noise

pytestmark = pytest.mark.unit


def settled(start: float, quantile: float, cohort: int, rounds: int, multiplier: float = 0.0) -> list[float]:
    """The clip norms of a run whose update norms are lognormal with median 1."""
    random, norm, course = np.random.default_rng(3), start, []
    deviation = split(multiplier).of_bits if multiplier else 0.0
    noise = np.zeros(rounds, dtype=np.int64)
    if multiplier:
        Noise(Fraction(deviation) * (1 << BIT_UNITS), bytes(32)).add(noise)
    for draw in noise:
        within = int((random.lognormal(0, 0.3, cohort) <= norm).sum())
        norm = next_norm(norm, share_within(within, cohort, int(draw)), quantile)
        course.append(norm)
    return course


@pytest.mark.parametrize("start", [0.01, 0.9, 1.1, 100.0])
@pytest.mark.parametrize(("quantile", "norm"), [(0.5, 1.0), (0.8, 1.287)])
def test_adaptive_clip__any_start__settles_at_the_quantile(start: float, quantile: float, norm: float) -> None:
    """The other sign runs away from 0.9 to zero and from 1.1 to infinity."""
    assert np.mean(settled(start, quantile, 100, 300)[-100:]) == pytest.approx(norm, rel=0.05)


@pytest.mark.parametrize("start", [0.01, 100.0])
def test_adaptive_clip__noised_bits_of_a_small_cohort__settles_near_it(start: float) -> None:
    assert np.mean(settled(start, 0.5, 10, 600, multiplier=1.0)[-300:]) == pytest.approx(1.0, rel=0.25)


def test_next_norm__everything_clipped__grows_and_nothing_clipped__shrinks() -> None:
    assert next_norm(1.0, share_within(0, 5, 0)) == math.exp(0.2 * 0.5)
    assert next_norm(1.0, share_within(5, 5, 0)) == math.exp(-0.2 * 0.5)
    assert next_norm(1.0, share_within(3, 6, 0)) == 1.0


@given(st.integers(1, 1000), st.data())
def test_share__without_noise__is_the_share(cohort: int, data: st.DataObject) -> None:
    unclipped = data.draw(st.integers(0, cohort))
    assert share_within(unclipped, cohort, 0) == pytest.approx(unclipped / cohort)
    assert share_within(unclipped, cohort, 1 << BIT_UNITS) == pytest.approx((unclipped + 1) / cohort)


@given(st.floats(0.05, 50), st.floats(0.01, 0.9))
def test_split__any_share__costs_what_one_gaussian_costs(z: float, share: float) -> None:
    parts = split(z, share)
    assert parts.of_sum**-2 + (2 * parts.of_bits) ** -2 == pytest.approx(z**-2)
    assert split_with(z, parts.of_bits).of_sum == pytest.approx(parts.of_sum)


def test_split__published_example__is_met() -> None:
    assert split_with(1.0, 100 / 20).of_sum == pytest.approx(1.00504, abs=1e-5)
    assert split(1.0).of_bits == pytest.approx(2.24, abs=0.01)


@pytest.mark.parametrize("cohort", [5, 10])
def test_split__paper_s_bits_with_a_small_cohort__is_refused(cohort: int) -> None:
    with pytest.raises(Refused, match="more than the whole budget"):
        split_with(1.0, cohort / 20)


@given(st.floats(0.01, 100), st.floats(-1e9, 1e9))
def test_next_norm__any_noise__stays_a_number_above_zero(norm: float, share: float) -> None:
    assert 0 < next_norm(norm, share) < math.inf


@pytest.mark.parametrize(("z", "share"), [(0.0, 0.5), (math.inf, 0.5), (1.0, 0.0), (1.0, 1.0)])
def test_split__no_split__is_refused(z: float, share: float) -> None:
    with pytest.raises(Refused, match="share"):
        split(z, share)


@pytest.mark.parametrize(("unclipped", "cohort"), [(0, 0), (3, 2), (-1, 2)])
def test_share__impossible_count__is_refused(unclipped: int, cohort: int) -> None:
    with pytest.raises(Refused, match="not clipped"):
        share_within(unclipped, cohort, 0)


@pytest.mark.parametrize(
    ("norm", "quantile", "rate"), [(0.0, 0.5, 0.2), (1.0, 1.0, 0.2), (1.0, 0.5, 0.0), (math.inf, 0.5, 0.2)]
)
def test_next_norm__numbers_out_of_range__are_refused(norm: float, quantile: float, rate: float) -> None:
    with pytest.raises(Refused, match="quantile"):
        next_norm(norm, 0.5, quantile, rate)
