# SPDX-License-Identifier: Apache-2.0
"""Sampled rounds: dp-accounting's golden values, and that its two accountants agree with the closed form at rate 1."""

import sys

import pytest

from flb.errors import MissingTool, Refused
from flb.privacy import accountant, sampled

pytestmark = pytest.mark.unit

DELTA = 1e-5
GOLDEN = [
    (1.0, 0.1, 200, 11.063, 9.971),
    (1.0, 0.01, 1000, 2.101, 1.828),
    (0.7, 0.1, 200, 23.091, 20.679),
    (2.0, 0.5, 100, 15.725, 14.284),
    (1.0, 0.2, 100, 16.082, 14.528),
]


@pytest.mark.parametrize(("z", "rate", "rounds", "rdp", "pld"), GOLDEN)
def test_sampled__golden_runs__agree_to_a_thousandth(
    z: float, rate: float, rounds: int, rdp: float, pld: float
) -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    assert sampled.by_rdp([(z, rate, rounds)], DELTA) == pytest.approx(rdp, abs=1e-3)
    assert sampled.by_pld([(z, rate, rounds)], DELTA) == pytest.approx(pld, abs=1e-3)


def test_sampled__grid_too_large__takes_rdp(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    monkeypatch.setattr(sampled, "LARGEST_GRID", 10)
    assert sampled.epsilon(1.0, 0.1, 200, DELTA) == pytest.approx(11.063, abs=1e-3)


def test_rdp__rate_1__is_above_the_closed_form() -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    exact = accountant.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=1.0, rounds=100, delta=DELTA)
    assert exact == pytest.approx(91.817, abs=1e-3)
    assert sampled.by_rdp([(1.0, 1.0, 100)], DELTA) == pytest.approx(96.12, abs=1e-2)


def test_grid_points__more_noise_or_a_lower_rate__is_fewer() -> None:
    points = sampled.grid_points(1.0, 0.1, 200)
    assert sampled.grid_points(2.0, 0.1, 200) < points < sampled.grid_points(1.0, 0.2, 200)
    assert sampled.grid_points(0.01, 0.5, 10) > sampled.LARGEST_GRID


def test_sampled__library_missing__is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(MissingTool, match=r"flb\[dp\]"):
        accountant.epsilon_of_rounds(noise_multiplier=1.0, sampling_rate=0.5, rounds=3, delta=DELTA)


def test_sampled__hardly_any_noise__is_infinite() -> None:
    assert sampled.epsilon(1e-7, 0.5, 1, DELTA) == float("inf")


def test_releases__of_two_kinds__cost_more_than_each_and_at_most_both() -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    one, other = (1.0, 0.1, 50), (2.0, 1.0, 1)
    both = sampled.epsilon_of_releases([one, other], DELTA)
    apart = [sampled.epsilon_of_releases([kind], DELTA) for kind in (one, other)]
    assert max(apart) < both < sum(apart)


@pytest.mark.parametrize(("rate", "rounds", "epsilon", "multiplier"), [(0.1, 200, 8.0, 1.130), (0.1, 200, 2.0, 3.004)])
def test_multiplier__golden_budgets__is_within_two_percent_above(
    rate: float, rounds: int, epsilon: float, multiplier: float
) -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    found = sampled.noise_multiplier_for(rate, rounds, epsilon, DELTA, 0.5)
    assert multiplier * 0.999 < found < multiplier * 1.025
    assert sampled.epsilon(found, rate, rounds, DELTA) <= epsilon


def test_multiplier__a_budget_of_nothing__is_refused() -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    with pytest.raises(Refused, match="no noise"):
        sampled.noise_multiplier_for(1.0, 10**15, 0.01, DELTA, 0.5)


def test_multiplier__the_least_is_enough__is_the_least() -> None:
    pytest.importorskip("dp_accounting", reason="needs the extra dp")
    assert sampled.noise_multiplier_for(0.01, 20, 8.0, DELTA, 2.0) == 2.0
