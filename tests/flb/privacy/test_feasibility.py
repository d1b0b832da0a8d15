# SPDX-License-Identifier: Apache-2.0
"""The forecast against the published table, and its levers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.privacy.accountant import noise_multiplier_for
from flb.privacy.feasibility import Forecast, forecast, local_ratio, refuse_hopeless

pytestmark = pytest.mark.unit


def budget(parameters: int, cohort: int, **changes: object) -> Forecast:
    settings = {"epsilon": 8.0, "delta": 1e-5, "rounds": 100, "local": False} | changes
    return forecast(parameters=parameters, cohort=cohort, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "ratios"),
    [
        (12_582_912, (2129, 213, 21, 2.1)),
        (4_460_000, (1268, 127, 12.7, 1.3)),
        (14_336, (72, 7.2, 0.72, 0.07)),
        (3_584, (36, 3.6, 0.36, 0.04)),
    ],
)
def test_forecast__published_table__agrees(parameters: int, ratios: tuple[float, ...]) -> None:
    found = [budget(parameters, cohort).ratio for cohort in (10, 100, 1000, 10_000)]
    assert found == pytest.approx(list(ratios), rel=0.03, abs=0.005)


def test_local_ratio__published_example__is_9500() -> None:
    assert local_ratio(2 * noise_multiplier_for(8, 1e-5, 50), 12_580_000, 10) == pytest.approx(9.5e3, rel=0.01)


@given(st.integers(1, 10**8), st.integers(1, 10**4), st.integers(1, 500), st.booleans())
def test_forecast__any_run__every_lever_helps_or_changes_nothing(
    parameters: int, cohort: int, rounds: int, local: bool
) -> None:
    found = budget(parameters, cohort, rounds=rounds, local=local)
    assert all(lever.ratio <= found.ratio * (1 + 1e-12) for lever in found.levers)
    assert [lever.ratio for lever in found.levers] == sorted(lever.ratio for lever in found.levers)


def test_forecast__central__is_better_than_local_by_twice_the_root_of_the_cohort() -> None:
    assert budget(1000, 100, local=True).ratio == pytest.approx(20 * budget(1000, 100).ratio)


@pytest.mark.parametrize(("cohort", "verdict"), [(10, "hopeless"), (40, "doubtful"), (100, "trains")])
def test_verdict__a_small_adapter__follows_the_cohort(cohort: int, verdict: str) -> None:
    assert budget(14_336, cohort).verdict == verdict


def test_refuse_hopeless__names_two_levers_unless_overridden() -> None:
    found = budget(12_582_912, 10, local=True)
    with pytest.raises(Refused, match="times the signal.*trusted aggregator.* or "):
        refuse_hopeless(found)
    refuse_hopeless(found, override=True)
    refuse_hopeless(budget(14_336, 100))


@pytest.mark.parametrize("change", [{"parameters": 0}, {"cohort": 0}, {"rounds": 0}])
def test_forecast__of_nothing__is_refused(change: dict[str, int]) -> None:
    with pytest.raises(Refused, match="at least 1"):
        budget(**({"parameters": 1, "cohort": 1} | change))
