# SPDX-License-Identifier: Apache-2.0
"""Every combination of choices: legal, or refused with a reason and a legal choice that is near."""

import itertools
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flb import legality
from flb.aggregation import rules
from flb.errors import Refused
from flb.legality.declarations import DECLARED, NONE
from flb.spec_sections import RunSpec
from flb.types import Codec
from tests.sim import small_spec

pytestmark = pytest.mark.unit

VARIANTS: dict[str, dict[str, Any]] = {
    "factors": {}, "residual": {"mode": "factors", "residual_rank": 2}, "alternate": {}, "freeze_a": {}, "product": {},
    "aligned": {"mode": "product", "align": True}, "energy": {"mode": "product", "energy": 0.9},
    "stack": {"max_rank": 200},
}  # fmt: skip
"""Modes with their own settings."""
EVERY = 1 if os.environ.get("FLB_FULL") else 7
"""Of so many refused specs one is asked for what is near; all are asked for a verdict."""
TRIPLES = list(itertools.product(VARIANTS, DECLARED.rules, DECLARED.mixings))


def spec_with(variant: str, rule: str = "mean", mixing: str = "none", **changes: Any) -> RunSpec:
    """A spec of three rounds of 5 to 10 nodes with these choices."""
    spec = small_spec(min_nodes=5, max_cohort=10)
    lora = replace(spec.lora, **{"mode": variant, **VARIANTS[variant], "ranks": changes.pop("ranks", ())})
    aggregation = replace(
        spec.aggregation, rule=rule, mixing=mixing, weights=changes.pop("weights", "examples"),
        byzantine=changes.pop("byzantine", 0), bucket=2 if mixing == "bucketing" else 0,
    )  # fmt: skip
    optimizer = replace(spec.server_optimizer, name=changes.pop("optimizer", "sgd"))
    return replace(spec, lora=lora, aggregation=aggregation, server_optimizer=optimizer, **changes)


def every(variant: str, rule: str, mixing: str) -> Iterator[RunSpec]:
    """All other choices."""
    codecs = [codec.name.lower() for codec in Codec]
    for codec, down, optimizer, weights, ranks, byzantine in itertools.product(
        codecs, ("f32", "mxint8"), DECLARED.optimizers, ("examples", "equal"), ((), (1, 2)), (0, 1)
    ):
        yield spec_with(
            variant, rule, mixing, codec=codec, down=down, optimizer=optimizer, weights=weights, ranks=ranks,
            byzantine=byzantine,
        )  # fmt: skip


@pytest.mark.parametrize(("variant", "rule", "mixing"), TRIPLES)
def test_reasons__every_combination__is_legal_or_has_a_legal_one_near(variant: str, rule: str, mixing: str) -> None:
    shown, refusals = False, 0
    for spec, privacy in itertools.product(every(variant, rule, mixing), DECLARED.privacies):
        if spec.codec != "f32" and privacy != NONE:
            continue  # what holds of codecs does not ask who adds noise
        found = legality.reasons(spec, privacy=privacy)
        if spec.codec != "f32":
            plain = replace(spec, codec="f32")
            assert found == legality.reasons(plain, privacy=privacy), "no codec decides anything"
            continue
        if not found:
            assert legality.nearest(spec, privacy=privacy) == ()
            continue
        assert all(reason.what and reason.code and reason.repairs for reason in found)
        refusals += 1
        if refusals % EVERY:
            continue
        changes = legality.nearest(spec, privacy=privacy)
        assert changes, f"no legal choice is near: {found}"
        assert legality.reasons(legality.repaired(spec, changes), privacy=privacy) == ()
        if shown or privacy != spec.privacy.mechanism:
            continue
        shown = True
        with pytest.raises(Refused) as refused:
            legality.refuse_illegal(spec)
        assert refused.value.what == found[0].what and refused.value.remedy.startswith("set ")


def test_reasons__none__every_round_that_is_sealed_can_be_combined() -> None:
    for variant, rule, mixing in TRIPLES:
        for spec in every(variant, rule, mixing):
            if (spec.codec, spec.server_optimizer.name) == ("f32", "sgd") and not legality.reasons(spec):
                for count in range(spec.rounds.min_nodes, spec.rounds.max_cohort + 1):
                    rules.check(spec.aggregation, count)


def test_reasons__repairs__end_the_reason_that_they_belong_to() -> None:
    for variant, rule, mixing in TRIPLES:
        for spec in itertools.islice(every(variant, rule, mixing), 0, None, 37):
            for reason in legality.reasons(spec):
                for repair in reason.repairs:
                    after = {found.code: found.what for found in legality.reasons(repair.applied(spec))}
                    assert after.get(reason.code) != reason.what, (reason, repair)
