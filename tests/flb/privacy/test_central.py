# SPDX-License-Identifier: Apache-2.0
"""Central privacy of a run: its numbers, what a node refuses of a spec made by hand, and the record's section."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flb.errors import Refused
from flb.planner import make_spec, read_spec
from flb.privacy import central, central_adaptive, noised_round
from flb.privacy.noised_round import NoisedRound
from flb.spec import PrivacySpec, RunSpec, check
from flb.types import Digest
from tests.sim import small_spec

pytestmark = pytest.mark.unit

PLAIN = replace(small_spec(), audit="members", aggregation=replace(small_spec().aggregation, weights="equal"))
FIXED = PrivacySpec("central_fixed", 0.5, 1.0, 0.0, 1e-5, 3)
ADAPTIVE = PrivacySpec("central_adaptive", 0.5, 1.0, 0.0, 1e-5, 3, 0.5, 0.2, 2.5)
NOISE = NoisedRound(Digest(b"\x05" * 32), 0.5, 1.0, 4.4, 1e-5, 1, None, 0.5)


def planned(privacy: PrivacySpec, **changes: Any) -> RunSpec:
    """A spec through the planner."""
    names = ("base", "lora", "tensors", "adapter", "training", "rounds", "aggregation", "server_optimizer", "scoring",
             "codec", "down", "salt", "audit")  # fmt: skip
    fixed = {"value_bound": 4, "weight_cap": 65536, "norm": None, "open_membership": False}
    return make_spec(**{**{name: getattr(PLAIN, name) for name in names}, **fixed, "privacy": privacy, **changes})


@pytest.mark.parametrize("privacy", [FIXED, ADAPTIVE])
def test_make_spec__central__is_read_back_and_hides_updates(privacy: PrivacySpec) -> None:
    spec = planned(privacy)
    assert spec.audit == "off" and read_spec(spec.encode()) == spec


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"aggregation": small_spec().aggregation}, "weights that do not depend"),
        ({"audit": "public"}, "hides updates"),
        ({"lora": replace(PLAIN.lora, mode="product"), "rounds": replace(PLAIN.rounds, max_cohort=9)}, "forms none"),
        ({"lora": replace(PLAIN.lora, residual_rank=2)}, "residual"),
        (
            {"aggregation": replace(PLAIN.aggregation, rule="median"), "lora": replace(PLAIN.lora, mode="alternate")},
            "is no sum",
        ),
        ({"aggregation": replace(PLAIN.aggregation, mixing="nearest_neighbours")}, "mixing nearest_neighbours"),
    ],
)
def test_make_spec__what_central_privacy_does_not_combine_with__is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        planned(FIXED, **changes)


@pytest.mark.parametrize(
    ("privacy", "words"),
    [
        (replace(FIXED, epsilon=1.0), "come to epsilon 8.385"),
        (replace(FIXED, noise_multiplier=1e-7, clip_norm=1e-3), "ring units"),
        (replace(FIXED, delta=0.6), "lets the guarantee fail"),
        (replace(FIXED, noise_multiplier=1e8), "ring units|62 bits"),
        (replace(ADAPTIVE, bits_noise=0.4), "costs more than the whole budget"),
    ],
)
def test_read_spec__made_by_hand__is_refused(privacy: PrivacySpec, words: str) -> None:
    spec = replace(planned(FIXED), privacy=privacy)
    with pytest.raises(Refused, match=words):
        read_spec(spec.encode())


@pytest.mark.parametrize(
    "privacy",
    [replace(FIXED, denominator=0), replace(FIXED, quantile=0.5), replace(ADAPTIVE, quantile=1.0),
     replace(ADAPTIVE, rate=0.0), replace(ADAPTIVE, bits_noise=0.0), PrivacySpec("local", 1.0, 1.0, 0.0, 1e-5, 3)],
)  # fmt: skip
def test_check__numbers_that_a_mechanism_does_not_have__are_refused(privacy: PrivacySpec) -> None:
    with pytest.raises(Refused, match="privacy"):
        check(replace(planned(FIXED), privacy=privacy))


def test_plan__budget_of_all_rounds__is_kept_with_sensitivity_of_one_clip_norm() -> None:
    made = central.plan(
        adaptive=False, clip_norm=1.0, epsilon=8.0, multiplier=None, delta=1e-5, steps=50, denominator=10, quantile=0.5,
        rate=0.2, bits_noise=None,
    )  # fmt: skip
    assert made.noise_multiplier == pytest.approx(4.243, abs=1e-2)
    assert central.epsilon_after(made, 50) <= 8.0 < central.epsilon_after(made, 51)


def test_split__adaptive__sum_and_bits_together_cost_the_multiplier() -> None:
    parts = central.split_of(ADAPTIVE)
    assert parts.of_sum**-2 + (2 * parts.of_bits) ** -2 == pytest.approx(ADAPTIVE.noise_multiplier**-2)
    assert central.split_of(FIXED).of_sum == 1.0 and central.split_of(FIXED).of_bits == 0.0


def test_noised_share__over_many_keys__has_the_mean_and_the_deviation_of_the_bits() -> None:
    keys = [index.to_bytes(32, "big") for index in range(2000)]
    shares = np.array([central_adaptive.noised_share(ADAPTIVE, 2, 3, key) for key in keys])
    deviation = ADAPTIVE.bits_noise / ADAPTIVE.denominator
    assert abs(float(shares.mean()) - 2 / 3) < 5 * deviation / len(keys) ** 0.5
    assert float(shares.std()) == pytest.approx(deviation, rel=0.1)


def test_following__any_share__stays_within_what_can_be_noised_and_admitted() -> None:
    ring = PLAIN.ring
    assert (
        central_adaptive.following(ADAPTIVE, ring, 0.5, 0.0)
        > 0.5
        > central_adaptive.following(ADAPTIVE, ring, 0.5, 1.0)
    )
    assert central_adaptive.following(ADAPTIVE, ring, 0.5, -1e6) == ring.norm_bound
    least = central_adaptive.following(ADAPTIVE, ring, 0.5, 1e9)
    least = central_adaptive.following(ADAPTIVE, ring, least, 1e9)
    assert central.sigma(ADAPTIVE, ring, least) >= 4096


@pytest.mark.parametrize("noise", [NOISE, replace(NOISE, epsilon=None, unclipped=0.25)])
def test_noised_round__as_json__comes_back(noise: NoisedRound) -> None:
    assert noised_round.from_json(json.loads(json.dumps(noised_round.to_json(noise)))) == noise


@pytest.mark.parametrize("changed", [{"noised_sum": "0x05"}, {"releases": 0}, {"releases": 1.5}, {"sigma": "much"}])
def test_noised_round__json_of_another_form__is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        noised_round.from_json({**noised_round.to_json(NOISE), **changed})
