# SPDX-License-Identifier: Apache-2.0
"""Which choices of a run spec go together, decided by what the chosen algorithms declare (`flb.capabilities`).

A pure function from a spec to the reasons why it is illegal. Each reason lists repairs, changes of one setting that end
it; `nearest` combines repairs until nothing is left, and the cheapest legal spec is what the refusal recommends. The
table in docs/aggregation.md is made from the same function.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

from flb.errors import Refused
from flb.legality.choices import Choices, Reason, Repair, config_key
from flb.legality.declarations import DECLARED, NONE, Declarations
from flb.legality.modes import (
    carried,
    chart,
    directions,
    down,
    growth,
    moments,
    product_settings,
    ranks,
    residual,
    whole_steps,
)
from flb.legality.updates import (
    adversary,
    buckets,
    counts,
    distances,
    overflow,
    privacy,
    quorum,
    rule_settings,
    weights,
)
from flb.spec_sections import RunSpec

Rule = Callable[[Choices], Iterator[Reason]]
LEGALITY_RULES: tuple[Rule, ...] = (
    ranks, chart, distances, adversary, weights, buckets, rule_settings, quorum, counts, product_settings, moments, carried, residual,
    directions, whole_steps, growth, down, overflow, privacy,
)  # fmt: skip
"""Each asks one question of the choices; in the order in which reasons are given. Their names are the reasons' codes."""
COSTS = {
    "training.optimizer_state": 1,
    "down": 1, "lora.align": 1, "lora.energy": 1, "aggregation.weights": 1, "aggregation.bucket": 1, "lora.max_rank": 1,
    "aggregation.neighbours": 1, "aggregation.selected": 1, "aggregation.iterations": 1, "aggregation.radius": 1,
    "server_optimizer.learning_rate": 1,
    "ring.weight_cap": 2, "rounds.max_cohort": 2, "rounds.min_nodes": 2, "rounds.steps": 2, "server_optimizer.name": 3,
    "lora.residual_rank": 3, "aggregation.mixing": 3, "lora.mode": 4, "lora.ranks": 5, "aggregation.rule": 20,
    "aggregation.byzantine": 25,
}  # fmt: skip
"""How far a change of a setting is from what was asked for. What costs bytes is changed first, the mode before the rule,
and last what the operator says about his adversary."""
SEARCHED = 4096
"""Specs that the search for the nearest one looks at before it gives up."""


def mechanism_of(spec: RunSpec) -> str:
    """The word of the privacy mechanism; `none` for a spec that has no such section."""
    return str(getattr(getattr(spec, "privacy", None), "mechanism", NONE))


def reasons(spec: RunSpec, declarations: Declarations = DECLARED, privacy: str | None = None) -> tuple[Reason, ...]:
    """Why the choices of a spec do not go together; none for a legal spec. `privacy` asks about another mechanism than the
    spec's own."""
    privacy = privacy or mechanism_of(spec)
    missing = tuple(_missing(spec, declarations, privacy))
    if missing:
        return missing
    choices = choices_of(spec, declarations, privacy)
    return tuple(replace(reason, code=rule.__name__) for rule in LEGALITY_RULES for reason in rule(choices))


def choices_of(spec: RunSpec, declarations: Declarations = DECLARED, privacy: str | None = None) -> Choices:
    """The spec with what the algorithms that it names declare; all of them must be there."""
    return Choices(
        spec,
        declarations,
        declarations.modes[spec.lora.mode],
        declarations.rules[spec.aggregation.rule],
        declarations.mixings[spec.aggregation.mixing],
        declarations.optimizers[spec.server_optimizer.name],
        declarations.privacies[privacy or mechanism_of(spec)],
    )


def _missing(spec: RunSpec, declarations: Declarations, privacy: str) -> Iterator[Reason]:
    """Words of the spec whose algorithm is not in this version."""
    words: tuple[tuple[str, str, Any], ...] = (
        ("lora.mode", spec.lora.mode, declarations.modes),
        ("aggregation.rule", spec.aggregation.rule, declarations.rules),
        ("aggregation.mixing", spec.aggregation.mixing, declarations.mixings),
        ("server_optimizer.name", spec.server_optimizer.name, declarations.optimizers),
        ("codec", spec.codec, declarations.codecs),
        ("privacy.mechanism", privacy, declarations.privacies),
    )
    for setting, word, known in words:
        if word not in known:
            what = f"{config_key(setting)} {word} is not in this version"
            yield Reason(what, tuple(Repair(setting, other) for other in known))
    if spec.lora.residual_rank and not declarations.residual:
        yield Reason("lora.residual_rank is not in this version", (Repair("lora.residual_rank", 0),))


def nearest(
    spec: RunSpec, declarations: Declarations = DECLARED, privacy: str | None = None
) -> tuple[Repair, ...] | None:
    """The cheapest repairs that make the spec legal together, by `COSTS`; empty for a legal spec, None if none was found.

    Dijkstra over specs: from each, the repairs of its first reason.
    """
    ticket = count()
    queue: list[tuple[int, int, RunSpec, tuple[Repair, ...]]] = [(0, next(ticket), spec, ())]
    seen: set[RunSpec] = set()
    while queue and len(seen) < SEARCHED:
        cost, _, at, done = heapq.heappop(queue)
        if at in seen:
            continue
        seen.add(at)
        found = reasons(at, declarations, privacy)
        if not found:
            return done
        for repair in found[0].repairs:
            if repair.setting not in {before.setting for before in done}:
                price = cost + COSTS.get(repair.setting, max(COSTS.values()))
                heapq.heappush(queue, (price, next(ticket), repair.applied(at), (*done, repair)))
    return None


def refuse_illegal(spec: RunSpec) -> None:
    """Raise Refused with the first reason and the nearest legal choice, unless the choices of the spec go together.

    Asked where a spec is made, and by everybody who reads one that somebody else made.
    """
    found = reasons(spec)
    if found:
        raise Refused(found[0].what, advice(spec, found[0]))


def advice(spec: RunSpec, reason: Reason) -> str:
    """The remedy for one reason: the nearest legal choice as settings of config.yaml, and what else ends the reason."""
    changes = nearest(spec)
    if not changes:
        return reason.remedy
    chosen = "set " + " and ".join(repair.words for repair in changes)
    others = [r for r in reason.repairs if r not in changes and r.setting in {change.setting for change in changes}]
    return chosen + (f" (or {', '.join(repair.shown for repair in others)})" if others else "")


def repaired(spec: RunSpec, repairs: tuple[Repair, ...]) -> RunSpec:
    """The spec with every repair in place."""
    for repair in repairs:
        spec = repair.applied(spec)
    return replace(spec)
