# SPDX-License-Identifier: Apache-2.0
"""The closed form against published values, its inversion, and that it never understates."""

import decimal
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.privacy.accountant import (
    epsilon_of,
    epsilon_of_rounds,
    log_delta,
    log_normal_cdf,
    mu_for,
    noise_multiplier_for,
)

pytestmark = pytest.mark.unit

DELTA = 1e-5
FULL = {
    0.5: (9.9973, 46.2112, 159.4415, 284.3918),
    1.0: (4.3772, 17.8566, 54.3766, 91.8173),
    2.0: (1.9931, 7.5113, 20.6755, 33.1037),
    5.0: (0.7255, 2.5944, 6.5730, 9.9973),
    10.0: (0.3407, 1.1994, 2.9432, 4.3772),
    20.0: (0.1600, 0.5613, 1.3565, 1.9931),
}
"""ε at δ = 10^-5 after 1, 10, 50 and 100 rounds of everybody; dp-accounting's PLD agrees to its grid."""


def epsilon(z: float, rounds: int, delta: float = DELTA) -> float:
    return epsilon_of_rounds(noise_multiplier=z, sampling_rate=1.0, rounds=rounds, delta=delta)


@pytest.mark.parametrize("z", FULL)
def test_epsilon__full_participation__is_the_golden_table(z: float) -> None:
    assert [epsilon(z, rounds) for rounds in (1, 10, 50, 100)] == pytest.approx(list(FULL[z]), abs=1e-3)


@pytest.mark.parametrize(("budget", "mu"), [(8.0, 1.666), (1.0, 0.268)])
def test_mu_for__published_budgets__is_the_golden_value(budget: float, mu: float) -> None:
    assert mu_for(budget, DELTA) == pytest.approx(mu, abs=1e-3)


@pytest.mark.parametrize(("budget", "rounds", "local"), [(8, 1, 1.20), (8, 50, 8.49), (1, 1, 7.46), (1, 50, 52.8)])
def test_noise__replaced_updates__is_the_golden_share_of_the_clip_norm(budget: int, rounds: int, local: float) -> None:
    assert 2 * noise_multiplier_for(budget, DELTA, rounds) == pytest.approx(local, rel=2e-3)


@pytest.mark.parametrize(("claimed", "delta"), [(10, 2.27e-5), (20, 1.5e-3), (50, 0.586)])
def test_delta__classic_formula_beyond_epsilon_1__breaks_its_claim(claimed: int, delta: float) -> None:
    """σ = √(2 ln(1.25/δ))/ε is proven below ε = 1 alone; why it is not offered."""
    sigma = math.sqrt(2 * math.log(1.25 / DELTA)) / claimed
    assert math.exp(log_delta(claimed, 1 / sigma)) == pytest.approx(delta, rel=0.02)


@given(st.floats(1e-3, 1e4), st.sampled_from((1e-12, 1e-9, 1e-5, 1e-2)), st.integers(1, 10_000))
def test_noise_multiplier__any_budget__meets_it_and_a_little_less_noise_does_not(
    budget: float, delta: float, rounds: int
) -> None:
    z = noise_multiplier_for(budget, delta, rounds)
    assert epsilon(z, rounds, delta) <= budget
    assert epsilon(z * (1 - 1e-6), rounds, delta) > budget


@given(st.floats(0.05, 100), st.integers(1, 1000), st.floats(1e-10, 0.1))
def test_epsilon__more_noise_fewer_rounds_larger_delta__never_costs_more(z: float, rounds: int, delta: float) -> None:
    here = epsilon(z, rounds, delta)
    assert epsilon(z * 1.1, rounds, delta) <= here <= epsilon(z, rounds + 1, delta)
    assert epsilon(z, rounds, delta * 1.1) <= here


@given(st.floats(0.5, 50), st.integers(1, 100))
def test_epsilon__four_times_the_rounds_at_twice_the_noise__is_the_same(z: float, rounds: int) -> None:
    assert epsilon(2 * z, 4 * rounds) == pytest.approx(epsilon(z, rounds), rel=1e-6, abs=1e-9)


def test_epsilon__no_release_or_hardly_any__is_zero() -> None:
    assert epsilon(1.0, 0) == 0.0 and epsilon(math.inf, 5) == 0.0 and epsilon_of(0.0, DELTA) == 0.0
    assert epsilon(1e9, 1) == 0.0


def test_epsilon__no_noise_to_speak_of__is_infinite() -> None:
    assert epsilon(1e-9, 1) == math.inf and epsilon_of(math.inf, DELTA) == math.inf


@pytest.mark.parametrize("x", [-400.0, -38.0, -25.0001, -24.9999, -5.0, 0.0, 4.9999, 5.0001, 9.0])
def test_log_normal_cdf__against_40_digits__is_right_to_14(x: float) -> None:
    assert log_normal_cdf(x) == pytest.approx(exact_log_cdf(x), rel=1e-13, abs=1e-300)


def exact_log_cdf(x: float) -> float:
    """By the continued fraction of Mills' ratio, or the series around zero, in decimal."""
    with decimal.localcontext(decimal.Context(prec=80)):
        d = decimal.Decimal(x)
        pi = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
        density = (-d * d / 2).exp() / (2 * pi).sqrt()
        if x < -5:
            fraction = -d
            for k in range(400, 0, -1):
                fraction = -d + k / fraction
            return float((density / fraction).ln())
        term = total = d
        for k in range(1, 400):
            term = term * d * d / (2 * k + 1)
            total += term
        return float((decimal.Decimal("0.5") + density * total).ln())


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_delta__no_probability__is_refused(delta: float) -> None:
    with pytest.raises(Refused, match="delta"):
        epsilon(1.0, 1, delta)


@pytest.mark.parametrize(
    ("z", "rate", "rounds"), [(0.0, 1.0, 1), (-1.0, 1.0, 1), (1.0, 0.0, 1), (1.0, 1.5, 1), (1.0, 1.0, -1)]
)
def test_epsilon__numbers_out_of_range__are_refused(z: float, rate: float, rounds: int) -> None:
    with pytest.raises(Refused, match="noise multiplier"):
        epsilon_of_rounds(noise_multiplier=z, sampling_rate=rate, rounds=rounds, delta=DELTA)


@pytest.mark.parametrize("budget", [0.0, -1.0, math.inf, math.nan])
def test_mu_for__no_budget__is_refused(budget: float) -> None:
    with pytest.raises(Refused, match="epsilon"):
        mu_for(budget, DELTA)


def test_noise_multiplier__no_round__is_refused() -> None:
    with pytest.raises(Refused, match="0 rounds"):
        noise_multiplier_for(1.0, DELTA, 0)


def test_epsilon_of__no_number__is_refused() -> None:
    with pytest.raises(Refused, match="mu is"):
        epsilon_of(math.nan, DELTA)
