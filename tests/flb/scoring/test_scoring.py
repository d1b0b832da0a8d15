# SPDX-License-Identifier: Apache-2.0
"""The table of rules: every name of the spec is a rule, and a spec's own rule is used."""

import dataclasses

import pytest

from flb import scoring
from flb import spec as specs
from flb.scoring import capped_examples, uploads_bytes_examples
from flb.types import Admitted
from tests.sim import manifest_for, members, opening, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()


def admitted(count: int = 2, weight: int = 50, examples: int = 10**9) -> list[Admitted]:
    opened = opening()
    return [
        Admitted(manifest_for(SPEC, opened, member, bytes(1000), examples), b"", weight, b"")
        for member in members(3)[:count]
    ]


def test_rules__names__are_those_of_the_spec() -> None:
    assert tuple(scoring.RULES) == specs.SCORING_RULES == tuple(scoring.WEAKNESSES)


def test_capped_examples__claim_beyond_the_cap__scores_the_weight() -> None:
    first, second = admitted()
    assert capped_examples.scores([first, second], SPEC) == {first.node: 50, second.node: 50}


def test_uploads_bytes_examples__claim__counts_in_full_with_the_size() -> None:
    (first,) = admitted(1)
    assert uploads_bytes_examples.scores([first], SPEC) == {first.node: 1000 + 10**9}


def test_weaknesses__historic_rule__says_three_and_the_capped_one_none() -> None:
    assert scoring.WEAKNESSES["capped_examples"] == ()
    historic = scoring.WEAKNESSES["uploads_bytes_examples"]
    assert [word for text in historic for word in ("repetition", "size", "declares") if word in text]
    assert len(historic) == 3


@pytest.mark.parametrize("rule", specs.SCORING_RULES)
def test_of_round__spec_s_rule__is_used(rule: str) -> None:
    spec = dataclasses.replace(SPEC, scoring=specs.ScoringSpec(rule, "0"))
    assert scoring.of_round(admitted(), spec) == scoring.RULES[rule](admitted(), spec)
    assert scoring.of_round([], spec) == {}
