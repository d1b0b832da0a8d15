# SPDX-License-Identifier: Apache-2.0
"""One legal choice beside one that is refused, for every rule of legality, on declarations of every kind."""

from dataclasses import replace
from typing import Any

import pytest

from flb import legality
from flb.capabilities import (
    MixingCapabilities,
    ModeCapabilities,
    OptimizerCapabilities,
    PrivacyCapabilities,
    RuleCapabilities,
)
from flb.legality.declarations import DECLARED, Declarations
from flb.spec_sections import RunSpec
from tests.sim import small_spec

pytestmark = pytest.mark.unit

KINDS = Declarations(
    modes={
        "factors": ModeCapabilities(linear=True, both_factors=True, exact=False, bit_exact=True),
        "alternate": ModeCapabilities(linear=True, both_factors=False, exact=True, bit_exact=True),
        "product": ModeCapabilities(False, True, exact=True, bit_exact=False, ranks_differ=True, turns=True),
        "stack": ModeCapabilities(False, True, exact=True, bit_exact=True, ranks_differ=True, restarts=True),
    },
    rules={
        "mean": RuleCapabilities(linear=True, robust=False, factor=0),
        "median": RuleCapabilities(coordinates=True),
        "krum": RuleCapabilities(offset=3, selects=True, settings=("neighbours",)),
        "geometric_median": RuleCapabilities(),
        "multi_krum": RuleCapabilities(offset=3, selects=True, settings=("neighbours", "selected")),
    },
    mixings={
        "none": MixingCapabilities(needs_distances=False, factor=0),
        "nearest_neighbours": MixingCapabilities(needs_distances=True, settings=("neighbours",)),
        "bucketing": MixingCapabilities(needs_distances=False),
    },
    optimizers={"sgd": OptimizerCapabilities(0), "adam": OptimizerCapabilities(2)},
    codecs=DECLARED.codecs,
    privacies={"none": PrivacyCapabilities(), "central": PrivacyCapabilities(central=True)},
    residual=True,
)
"""One algorithm of each kind that the rules tell apart."""


def spec_with(**changes: Any) -> RunSpec:
    """A spec of 3 rounds of 5 to 10 nodes; `section__name=value` changes a field."""
    spec = small_spec(min_nodes=5, max_cohort=10)
    for path, value in changes.items():
        section, _, name = path.rpartition("__")
        changed = replace(getattr(spec, section), **{name: value}) if section else value
        spec = replace(spec, **{section or name: changed})
    return spec


def robust(**changes: Any) -> RunSpec:
    """The same in mode `alternate`, with a rule that bears one hostile update."""
    chosen = {"aggregation__rule": "median", "aggregation__weights": "equal", "aggregation__byzantine": 1}
    return spec_with(**{"lora__mode": "alternate", **chosen, **changes})


def refused(code: str, words: str, setting: str, value: Any, spec: RunSpec, privacy: str = "none") -> Any:
    """One refused case: its code, words of its sentence, and the first change of the nearest choice."""
    return pytest.param(spec, privacy, code, words, (setting, value), id=f"{code}-{setting}-{value}")


CASES = [
    refused("chart", "coordinates of A and B", "lora.mode", "alternate", robust(lora__mode="factors")),
    refused("chart", "coordinates of A and B", "lora.mode", "alternate", robust(lora__mode="product")),
    refused("distances", "no common start", "lora.mode", "factors",
            robust(lora__mode="stack", lora__max_rank=60, aggregation__rule="krum")),
    refused("distances", "different shapes", "lora.ranks", (),
            robust(lora__mode="product", lora__ranks=(1, 2), aggregation__rule="krum")),
    refused("weights", "what it declares", "aggregation.weights", "equal", robust(aggregation__weights="examples")),
    refused("adversary", "bears no hostile update", "aggregation.rule", "krum",
            robust(aggregation__rule="mean", lora__mode="factors")),
    refused("adversary", "makes a robust rule better", "aggregation.mixing", "none",
            spec_with(aggregation__mixing="nearest_neighbours")),
    refused("buckets", "needs buckets of 2 to 64", "aggregation.bucket", 2,
            robust(aggregation__mixing="bucketing", aggregation__bucket=65)),
    refused("buckets", "has no buckets", "aggregation.bucket", 0, robust(aggregation__bucket=2)),
    refused("quorum", "needs 7 updates to bear 2", "rounds.min_nodes", 7,
            robust(aggregation__rule="krum", aggregation__byzantine=2)),
    refused("quorum", "needs 7 updates to bear 3", "rounds.min_nodes", 7, robust(aggregation__byzantine=3)),
    refused("quorum", "in buckets of 3 needs 7 updates", "rounds.min_nodes", 7,
            robust(aggregation__mixing="bucketing", aggregation__bucket=3)),
    refused("counts", "has 3 honest ones near it", "aggregation.neighbours", 0,
            robust(aggregation__rule="krum", aggregation__neighbours=4)),
    refused("counts", "has 4 honest ones near it", "aggregation.neighbours", 0,
            robust(aggregation__mixing="nearest_neighbours", aggregation__neighbours=5)),
    refused("unread", "neighbours is 3, and the rule median does not read it", "aggregation.neighbours", 0,
            robust(aggregation__neighbours=3)),
    refused("unread", "selected is 3, and the rule krum", "aggregation.selected", 0,
            robust(aggregation__rule="krum", aggregation__selected=3)),
    refused("unread", "iterations is 3, and the rule mean", "aggregation.iterations", 0,
            spec_with(aggregation__iterations=3)),
    refused("unread", "radius is 0.5, and the rule geometric_median", "aggregation.radius", 0,
            robust(aggregation__rule="geometric_median", aggregation__radius=0.5)),
    refused("counts", "selected is 5", "aggregation.selected", 0,
            robust(aggregation__rule="multi_krum", aggregation__selected=5)),
    refused("ranks", "all nodes train at rank 2", "lora.mode", "product", spec_with(lora__ranks=(1, 2))),
    refused("ranks", "all nodes train at rank 2", "lora.mode", "product", spec_with(lora__ranks=(1,))),
    refused("product_settings", "no factors to turn", "lora.align", False, spec_with(lora__align=True)),
    refused("product_settings", "keeps every rank", "lora.energy", 1.0, spec_with(lora__energy=0.5)),
    refused("product_settings", "turning mixes them", "lora.align", False,
            spec_with(lora__mode="product", lora__align=True, lora__ranks=(1, 2))),
    refused("moments", "turns the factors", "lora.align", True,
            spec_with(lora__mode="product", server_optimizer__name="adam")),
    refused("moments", "new factors in every round", "server_optimizer.name", "sgd",
            spec_with(lora__mode="stack", lora__max_rank=60, server_optimizer__name="adam")),
    refused("moments", "turns the factors", "server_optimizer.name", "sgd",
            spec_with(lora__mode="product", lora__ranks=(1, 2), server_optimizer__name="adam")),
    refused("carried", "new factors in every round", "training.optimizer_state", "reset",
            spec_with(lora__mode="stack", lora__max_rank=60, training__optimizer_state="keep")),
    refused("residual", "leaves no residual", "lora.residual_rank", 0,
            spec_with(lora__mode="alternate", lora__residual_rank=2)),
    refused("residual", "that of the mean", "lora.residual_rank", 0,
            robust(lora__mode="factors", lora__residual_rank=2, aggregation__rule="krum")),
    refused("residual", "moments of adam change", "lora.residual_rank", 0,
            spec_with(lora__residual_rank=2, server_optimizer__name="adam")),
    refused("directions", "at most 2047 nodes", "rounds.max_cohort", 2047,
            spec_with(lora__mode="product", rounds__max_cohort=4096)),
    refused("directions", "at most 2046 nodes", "rounds.max_cohort", 2046,
            spec_with(lora__residual_rank=2, rounds__max_cohort=4096)),
    refused("whole_steps", "takes the mean as it is", "server_optimizer.learning_rate", 1.0,
            spec_with(lora__mode="stack", lora__max_rank=60, server_optimizer__learning_rate=0.5)),
    refused("growth", "may grow to rank 60", "lora.max_rank", 60, spec_with(lora__mode="stack")),
    refused("growth", "does not grow", "lora.max_rank", 0, spec_with(lora__max_rank=8)),
    refused("down", "computes new factors", "down", "f32", spec_with(lora__mode="product", down="mxint8")),
    refused("down", "computes new frozen ones", "down", "f32", spec_with(lora__residual_rank=2, down="mxint8")),
    refused("overflow", "may need 67 bits", "rounds.max_cohort", 511,
            robust(aggregation__rule="geometric_median", aggregation__mixing="nearest_neighbours",
                   rounds__max_cohort=4096)),
    refused("overflow", "exact for 8192 updates", "rounds.max_cohort", 8192,
            robust(aggregation__mixing="nearest_neighbours", rounds__max_cohort=10_000)),
    refused("overflow", "may need 66 bits", "ring.weight_cap", (1 << 63) // ((1 << 34) * 10) - 1,
            spec_with(ring__weight_cap=1 << 28)),
    refused("privacy", "weights that do not depend", "aggregation.weights", "equal", spec_with(audit="off"), "central"),
    refused("privacy", "hides updates", "audit", "off", spec_with(aggregation__weights="equal"), "central"),
    refused("privacy", "no sum", "aggregation.rule", "mean",
            robust(audit="off", aggregation__byzantine=0), "central"),
    refused("privacy", "residual is no sum", "lora.residual_rank", 0,
            spec_with(audit="off", aggregation__weights="equal", lora__residual_rank=2), "central"),
    refused("privacy", "forms none", "lora.mode", "factors",
            spec_with(audit="off", aggregation__weights="equal", lora__mode="product"), "central"),
    refused("missing", "is not in this version", "lora.mode", "factors", spec_with(lora__mode="freeze_a")),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "privacy", "code", "words", "change"), CASES)
def test_reasons__refused__name_the_nearest_legal_choice(
    spec: RunSpec, privacy: str, code: str, words: str, change: tuple[str, Any]
) -> None:
    (reason,) = legality.reasons(spec, KINDS, privacy)
    assert (reason.code, words in reason.what) == (code, True), reason.what
    changes = legality.nearest(spec, KINDS, privacy)
    assert changes and (changes[0].setting, changes[0].value) == change
    assert legality.reasons(legality.repaired(spec, changes), KINDS, privacy) == ()


@pytest.mark.parametrize(
    ("spec", "privacy"),
    [
        (spec_with(), "none"),
        (spec_with(lora__residual_rank=2), "none"),
        (spec_with(lora__ranks=(2,)), "none"),
        (spec_with(lora__mode="product", lora__ranks=(1, 2), lora__energy=0.5), "none"),
        (spec_with(lora__mode="product", lora__align=True, server_optimizer__name="adam"), "none"),
        (spec_with(lora__mode="stack", lora__max_rank=60, lora__ranks=(1, 2)), "none"),
        (spec_with(server_optimizer__name="adam", down="mxint8"), "none"),
        (robust(aggregation__byzantine=2), "none"),
        (robust(lora__mode="factors", aggregation__rule="krum"), "none"),
        (robust(lora__mode="product", aggregation__rule="krum"), "none"),
        (robust(aggregation__mixing="nearest_neighbours"), "none"),
        (robust(aggregation__mixing="nearest_neighbours", aggregation__neighbours=2), "none"),
        (robust(aggregation__rule="multi_krum", aggregation__neighbours=2, aggregation__selected=2), "none"),
        (robust(aggregation__mixing="bucketing", aggregation__bucket=2), "none"),
        (robust(aggregation__rule="krum", aggregation__mixing="nearest_neighbours", rounds__max_cohort=4096), "none"),
        (spec_with(aggregation__weights="equal", audit="off"), "central"),
    ],
)
def test_reasons__choices_that_go_together__have_none(spec: RunSpec, privacy: str) -> None:
    assert legality.reasons(spec, KINDS, privacy) == ()
    assert legality.nearest(spec, KINDS, privacy) == ()


def test_reasons__several_choices_at_odds__are_all_named() -> None:
    spec = robust(lora__mode="factors", aggregation__weights="examples", lora__ranks=(1, 2), down="mxint8")
    assert [reason.code for reason in legality.reasons(spec, KINDS)] == ["ranks", "chart", "weights"]
    changes = legality.nearest(spec, KINDS)
    assert changes is not None
    assert legality.reasons(legality.repaired(spec, changes), KINDS) == ()


def test_repair__words__are_lines_of_the_config() -> None:
    words = [
        legality.Repair(setting, value).words
        for setting, value in [("lora.align", True), ("lora.ranks", ()), ("rounds.min_nodes", 7), ("down", "f32"),
                               ("aggregation.rule", "median"), ("ring.weight_cap", 9)]
    ]  # fmt: skip
    assert words == ["lora.align: true", "lora.ranks: null", "run.min_nodes: 7", "run.down: f32",
                     "run.aggregation.rule: median", "run.weight_cap: 9"]  # fmt: skip
