# SPDX-License-Identifier: Apache-2.0
"""The audit: bounds of rates, an honest mechanism that stands, and one with a quarter of the noise that falls."""

import hashlib
from collections.abc import Callable
from itertools import count

import pytest

from flb.errors import Refused
from flb.privacy.accountant import noise_multiplier_for
from flb.privacy.empirical_audit import Verdict, audit, chance_of_at_most, least_rate, most_rate, shown_epsilon
from flb.spec import PrivacySpec

pytestmark = pytest.mark.unit


def keys(name: bytes) -> Callable[[], bytes]:
    numbers = count()
    return lambda: hashlib.sha256(name + next(numbers).to_bytes(8, "big")).digest()


def audited(share: float, trials: int = 1200, rounds: int = 2) -> Verdict:
    claim = PrivacySpec("local", 1.0, 2 * noise_multiplier_for(3.0, 1e-5, rounds), 3.0, 1e-5)
    return audit(claim, trials, rounds, keys(b"audit"), share)


def test_audit__the_noise_that_is_claimed__is_not_convicted() -> None:
    found = audited(1.0)
    assert not found.convicted and found.shown <= found.epsilon <= 3.0 and found.trials == 1200


def test_audit__a_quarter_of_the_noise__is_convicted() -> None:
    found = audited(0.25)
    assert found.convicted and found.shown > 3.0 >= found.epsilon


def test_audit__the_same_key_every_time__is_convicted() -> None:
    """Noise that the attacker has seen before hides nothing."""
    claim = PrivacySpec("local", 1.0, 2 * noise_multiplier_for(3.0, 1e-5, 1), 3.0, 1e-5)
    assert audit(claim, 1200, 1, lambda: bytes(32)).convicted


@pytest.mark.parametrize(("hits", "trials", "low", "high"), [(0, 10, 0.0, 0.30850), (5, 10, 0.18709, 0.81291), (10, 10, 0.69150, 1.0)])  # fmt: skip
def test_rates__known_counts__have_the_tabulated_bounds(hits: int, trials: int, low: float, high: float) -> None:
    assert least_rate(hits, trials, 0.025) == pytest.approx(low, abs=1e-5)
    assert most_rate(hits, trials, 0.025) == pytest.approx(high, abs=1e-5)


def test_chance__all_counts__is_one() -> None:
    assert chance_of_at_most(20, 20, 0.3) == pytest.approx(1.0, abs=1e-12)


def test_shown__no_better_than_chance__is_nothing() -> None:
    assert shown_epsilon(50, 50, 100, 1e-5) == 0.0 and shown_epsilon(0, 0, 100, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("mechanism", "trials", "rounds", "share"), [("local", 199, 1, 1.0), ("local", 200, 0, 1.0), ("example", 200, 1, 1.0), ("local", 200, 1, 0.0)]
)  # fmt: skip
def test_audit__too_little_to_tell__is_refused(mechanism: str, trials: int, rounds: int, share: float) -> None:
    with pytest.raises(Refused, match="audit"):
        audit(PrivacySpec(mechanism, 1.0, 1.0, 0.0, 1e-5), trials, rounds, keys(b""), share)
