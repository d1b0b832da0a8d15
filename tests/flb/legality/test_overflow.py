# SPDX-License-Identifier: Apache-2.0
"""The bound of a round's sums, beside the integers that the rules come to."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import legality
from flb.aggregation import rules
from flb.aggregation.gram import squared_distances
from flb.legality.declarations import DECLARED
from flb.legality.overflow import HEADROOM, largest_cap, largest_cohort, largest_sum, weight_total
from flb.spec_sections import AggregationSpec, RunSpec
from flb.types import Step
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def spec_with(aggregation: AggregationSpec, **rounds: int) -> RunSpec:
    """A spec in a mode that every rule goes with."""
    return replace(small_spec("alternate", **rounds), aggregation=aggregation)


@given(data=st.data())
def test_weight_total__any_legal_rule_and_mixing__is_no_less_than_what_a_round_adds_up_to(data: st.DataObject) -> None:
    rule, mixing = data.draw(st.sampled_from(list(DECLARED.rules))), data.draw(st.sampled_from(list(DECLARED.mixings)))
    robust = DECLARED.rules[rule].robust
    aggregation = AggregationSpec(
        rule=rule, mixing=mixing if robust else "none", weights="equal" if robust else "examples",
        byzantine=data.draw(st.integers(0, 2)) if robust else 0,
        bucket=data.draw(st.integers(2, 5)) if robust and mixing == "bucketing" else 0,
    )  # fmt: skip
    count = data.draw(st.integers(12, 40))
    spec = spec_with(aggregation, min_nodes=count)
    if legality.reasons(spec):  # buckets so large that too few are left
        return
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = random.integers(-1000, 1000, (count, 5)) * random.integers(1, 100, (count, 1))
    gram = (rows @ rows.T).astype(np.int64)
    weights = [int(weight) for weight in random.integers(1, spec.ring.weight_cap, count)]
    mixture = rules.mixture(aggregation, squared_distances(gram), count, bytes(32), Step(1))
    if DECLARED.rules[rule].coordinates:
        first, last = rules.ranks(aggregation, count if mixture is None else len(mixture.matrix))
        total = (last - first) * (1 if mixture is None else mixture.denominator)
    else:
        weighing = rules.weigh(aggregation, gram, weights, mixture)
        total = max(sum(weighing.weights), weighing.denominator)
    assert total <= weight_total(legality.choices_of(spec), count)


def test_largest_cap_and_cohort__are_the_last_that_are_legal() -> None:
    spec = spec_with(AggregationSpec(), max_cohort=4096)
    choices = legality.choices_of(spec)
    assert (largest_cap(choices), largest_cohort(choices)) == (131_071, 8191)
    assert largest_sum(choices, 8191) < HEADROOM <= largest_sum(choices, 8192)
    capped = legality.choices_of(replace(spec, ring=replace(spec.ring, weight_cap=131_071)))
    assert largest_sum(capped, 4096) < HEADROOM
