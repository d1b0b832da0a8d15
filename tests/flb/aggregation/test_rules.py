# SPDX-License-Identifier: Apache-2.0
"""Properties that all rules share: what they promise against f wrong updates, and what they may not depend on."""

import dataclasses
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.aggregation import rules
from flb.errors import Refused
from flb.spec_sections import AGGREGATION_RULES, MIXINGS, AggregationSpec
from tests.rules import SCALE, applied, gram_of, honest, integer_vectors

pytestmark = pytest.mark.unit

ROBUST = tuple(rule for rule in AGGREGATION_RULES if rule != "mean")
SELECTING = ("krum", "multi_krum")


def spec_of(rule: str, byzantine: int = 2, mixing: str = "none", **more: int) -> AggregationSpec:
    bucket = 2 if mixing == "bucketing" else 0
    return AggregationSpec(
        rule=rule, byzantine=byzantine, mixing=mixing, bucket=more.pop("bucket", bucket), weights="equal",
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


KAPPA = {
    "median": lambda n, f: 4 * (1 + f / (n - 2 * f)) ** 2,
    "trimmed_mean": lambda n, f: 6 * f / (n - 2 * f) * (1 + f / (n - 2 * f)),
    "krum": lambda n, f: 6 * (1 + f / (n - 2 * f)),
    "multi_krum": lambda n, f: 6 * (1 + f / (n - 2 * f)),
    "geometric_median": lambda n, f: 4 * (1 + f / (n - 2 * f)) ** 2,
}
"""Bounds of Allouah et al. (2023): ‖F(x) - mean of S‖² ≤ kappa · 1/|S| Σ ‖xᵢ - mean of S‖² for every S of n - f updates."""


@given(
    st.sampled_from(sorted(KAPPA)),
    st.booleans(),
    st.sampled_from([(9, 1), (9, 2), (9, 3), (11, 3), (11, 4)]),
    st.sampled_from(["far", "flip", "shift", "copy"]),
    st.integers(0, 2**32),
)
def test_rules__any_honest_majority__keep_their_kappa(
    rule: str, mixed: bool, counts: tuple[int, int], attack: str, seed: int
) -> None:
    count, f = counts
    values = honest(seed, count, 4)
    center, spread = values[f:].mean(axis=0), values[f:].std(axis=0)
    values[:f] = {
        "far": center + 300, "flip": -3 * center, "shift": center - 1.5 * spread, "copy": values[f],
    }[attack]  # fmt: skip
    result = applied(spec_of(rule, f, "nearest_neighbours" if mixed else "none"), integer_vectors(values))
    error = float(((result - center) ** 2).sum())
    variance = float(((values[f:] - center) ** 2).sum()) / (count - f)
    kappa = KAPPA[rule](count, f)
    if mixed:
        kappa = 8 * f / (count - f) * (kappa + 1)
    assert error <= kappa * variance + 1e-3


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("rule", ROBUST)
def test_rules__wrong_updates_of_any_size__stay_within_the_honest_scale(rule: str, mixing: str) -> None:
    values = honest(3, 13)
    clean = applied(spec_of(rule, 2, mixing), integer_vectors(values))
    for size in (10, 400):
        values[[4, 9]] = size
        moved = applied(spec_of(rule, 2, mixing), integer_vectors(values))
        assert float(np.linalg.norm(moved - clean)) < 5


@pytest.mark.parametrize("rule", ["mean", *ROBUST])
def test_rules__permuted_updates__give_the_same_result(rule: str) -> None:
    vectors = integer_vectors(honest(5, 11))
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(11)
        assert applied(spec_of(rule), vectors[order]) == pytest.approx(applied(spec_of(rule), vectors), abs=1e-5)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("rule", ["mean", *(rule for rule in ROBUST if rule != "norm_bound")])
def test_rules__moved_and_scaled_updates__move_and_scale_the_result(rule: str, mixing: str) -> None:
    values = honest(6, 13)
    plain = applied(spec_of(rule, mixing=mixing), integer_vectors(values))
    turned = applied(spec_of(rule, mixing=mixing), integer_vectors(4 * values + 7))
    assert turned == pytest.approx(4 * plain + 7, abs=1e-3)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("rule", ["mean", *ROBUST])
def test_rules__equal_updates__give_that_update(rule: str, mixing: str) -> None:
    values = np.repeat(honest(7, 1), 13, axis=0)
    vectors = integer_vectors(values)
    assert (applied(spec_of(rule, mixing=mixing), vectors) * SCALE).tolist() == vectors[0].tolist()


@pytest.mark.parametrize("rule", ["mean", "trimmed_mean", "multi_krum"])
@pytest.mark.parametrize("mixing", ["none", "nearest_neighbours"])
def test_rules__no_wrong_updates__are_the_mean(rule: str, mixing: str) -> None:
    vectors = integer_vectors(honest(8, 9))
    expected = [float(Fraction(int(total), 9)) / SCALE for total in vectors.sum(axis=0)]
    assert applied(spec_of(rule, 0, mixing), vectors).tolist() == expected


def test_rules__mixing_without_wrong_updates__makes_every_rule_the_mean() -> None:
    vectors = integer_vectors(honest(8, 9))
    expected = [float(Fraction(int(total), 9)) / SCALE for total in vectors.sum(axis=0)]
    for rule in ROBUST:
        assert applied(spec_of(rule, 0, "nearest_neighbours"), vectors).tolist() == expected


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound"])
def test_rules__duplicates__count_alike_or_the_first_in_node_order_wins(rule: str) -> None:
    values = honest(9, 11)
    values[[2, 7, 8]] = values.mean(axis=0)  # the nearest to all others
    gram = gram_of(integer_vectors(values))
    weights = rules.weigh(spec_of(rule, selected=1) if rule == "multi_krum" else spec_of(rule), gram, [1] * 11, None)[0]
    assert (weights[2], weights[7], weights[8]) == ((1, 0, 0) if rule in SELECTING else (weights[2],) * 3)
    assert weights[2] > 0


@pytest.mark.parametrize("rule", ROBUST)
def test_check__one_update_too_few__is_refused_and_one_more_runs(rule: str) -> None:
    for mixing in MIXINGS:
        spec = spec_of(rule, 1, mixing)
        least = rules.least_updates(spec)
        applied(spec, integer_vectors(honest(1, least)))
        with pytest.raises(Refused, match=f"needs at least {least} updates, there are {least - 1}"):
            rules.check(spec, least - 1)


@pytest.mark.parametrize("bucket", [0, 65])
def test_check__a_group_size_that_is_none__is_refused(bucket: int) -> None:
    with pytest.raises(Refused, match=f"bucket is {bucket}: choose a group size from 1 to 64"):
        rules.check(spec_of("median", 0, "bucketing", bucket=bucket), 9)


def test_check__no_updates__are_refused() -> None:
    with pytest.raises(Refused, match="at least 1 updates, there are 0"):
        rules.check(AggregationSpec(), 0)


def test_weigh__weights_of_zero__are_refused() -> None:
    with pytest.raises(Refused, match="every update of the round has weight 0"):
        rules.weigh(dataclasses.replace(AggregationSpec()), None, [0, 0], None)
