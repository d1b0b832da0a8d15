# SPDX-License-Identifier: Apache-2.0
"""Rules of legality about updates: what a rule, a mixing and a privacy mechanism need of those that they are given.

Each is a function from the choices of a spec to reasons. It asks what the chosen algorithms declare, never which they are.
"""

from collections.abc import Callable, Iterator

from flb.aggregation import bucketing, mixture
from flb.capabilities import RuleCapabilities
from flb.legality.choices import Choices, Reason, Repair
from flb.legality.declarations import NONE
from flb.legality.overflow import HEADROOM, largest_cap, largest_cohort, largest_sum


def distances(c: Choices) -> Iterator[Reason]:
    """Whole updates can be compared where they start from one point and have one shape: not where factors begin anew in
    every round, and not at ranks that differ."""
    aggregation, comparing = c.spec.aggregation, list[tuple[str, tuple[Repair, ...]]]()
    if c.mixing.needs_distances:
        comparing.append((f"mixing {aggregation.mixing}", (Repair("aggregation.mixing", NONE),)))
    if c.rule.weighs:
        comparing.append((f"the rule {aggregation.rule}", c.rules(lambda rule: not rule.weighs)))
    for word, others in comparing:
        if c.mode.restarts:
            yield Reason(
                f"{word} compares whole updates, and in mode {c.spec.lora.mode} they have no common start",
                c.modes(lambda mode: not mode.restarts) + others,
            )
        elif c.ranks_differ:
            yield Reason(
                f"{word} compares whole updates, and lora.ranks lets them have different shapes",
                (Repair("lora.ranks", ()), *others),
            )


def weights(c: Choices) -> Iterator[Reason]:
    """Inside a robust rule a node could buy influence with the examples that it declares, so every update counts one."""
    if c.rule.robust and c.spec.aggregation.weights != "equal":
        yield Reason(
            f"the rule {c.spec.aggregation.rule} bears hostile updates, and run.aggregation.weights examples would let a node "
            "count for more by what it declares",
            (Repair("aggregation.weights", "equal"), *c.rules(lambda r: not r.robust)),
        )


def adversary(c: Choices) -> Iterator[Reason]:
    """A rule that is not robust bears no hostile update, whatever is mixed before it."""
    aggregation = c.spec.aggregation
    if c.rule.robust:
        return
    if aggregation.byzantine:
        yield Reason(
            f"run.aggregation.byzantine is {aggregation.byzantine}, and the rule {aggregation.rule} bears no hostile update",
            (*c.rules(lambda r: r.robust), Repair("aggregation.byzantine", 0)),
        )
    if c.mixed:
        yield Reason(
            f"mixing {aggregation.mixing} makes a robust rule better, and the rule {aggregation.rule} is none",
            (Repair("aggregation.mixing", NONE), *c.rules(lambda r: r.robust)),
        )


def buckets(c: Choices) -> Iterator[Reason]:
    """Buckets hold 2 to 64 updates, so that their common denominator stays small, and belong to a mixing that has some."""
    aggregation = c.spec.aggregation
    if c.in_buckets and not 2 <= aggregation.bucket <= bucketing.LARGEST:
        yield Reason(
            f"mixing {aggregation.mixing} needs buckets of 2 to {bucketing.LARGEST} updates, and run.aggregation.bucket is "
            f"{aggregation.bucket}",
            (Repair("aggregation.bucket", 2), Repair("aggregation.mixing", NONE)),
        )
    elif aggregation.bucket and not c.in_buckets:
        yield Reason(
            f"run.aggregation.bucket is {aggregation.bucket}, and mixing {aggregation.mixing} has no buckets",
            (Repair("aggregation.bucket", 0),),
        )


def quorum(c: Choices) -> Iterator[Reason]:
    """The smallest round that is sealed, of min_nodes updates, must bear the hostile ones."""
    aggregation, rounds = c.spec.aggregation, c.spec.rounds
    size = aggregation.bucket if c.in_buckets else 1
    if not c.rule.robust or (c.in_buckets and not 2 <= size <= bucketing.LARGEST):
        return
    mixing_least = c.mixing.factor * aggregation.byzantine + c.mixing.offset if c.mixing.needs_distances else 0
    least = max(mixing_least, size * (c.rule.least(aggregation.byzantine) - 1) + 1)
    if rounds.min_nodes >= least:
        return
    buckets_text = f" in buckets of {size}" if size > 1 else ""
    raised = (Repair("rounds.min_nodes", least),) if least <= rounds.max_cohort else ()
    borne = max((f for f in range(aggregation.byzantine) if c.rule.least(f) <= c.inputs), default=None)
    lowered = (Repair("aggregation.byzantine", borne),) if borne is not None else ()
    unmixed = (Repair("aggregation.mixing", NONE),) if c.mixed else ()
    yield Reason(
        f"the rule {aggregation.rule}{buckets_text} needs {least} updates to bear {aggregation.byzantine} hostile ones, "
        f"and a round of run.min_nodes {rounds.min_nodes} has fewer",
        (*raised, *lowered, *unmixed, *c.rules(lambda r: not r.robust or r.least(aggregation.byzantine) <= c.inputs)),
    )


def reading(name: str) -> Callable[[RuleCapabilities], bool]:
    """Whether a rule reads this number."""
    return lambda rule: name in rule.settings


def unread(c: Choices) -> Iterator[Reason]:
    """A number that neither rule nor mixing reads would promise what does not happen."""
    aggregation = c.spec.aggregation
    for name in ("neighbours", "selected", "iterations", "radius"):
        if getattr(aggregation, name) and name not in c.rule.settings + c.mixing.settings:
            yield Reason(
                f"run.aggregation.{name} is {getattr(aggregation, name):g}, and the rule {aggregation.rule} does not read it",
                (Repair(f"aggregation.{name}", 0), *c.rules(reading(name))),
            )


def counts(c: Choices) -> Iterator[Reason]:
    """What a rule compares and selects must be there in the smallest round without a hostile one: neighbours beside the
    update itself, which a mixing counts among them, and selected updates."""
    aggregation, inputs = c.spec.aggregation, c.inputs
    if aggregation.neighbours:
        ours = [inputs - 1] * ("neighbours" in c.rule.settings) + [inputs] * ("neighbours" in c.mixing.settings)
        most = min(ours, default=aggregation.neighbours + aggregation.byzantine) - aggregation.byzantine
        if aggregation.neighbours > most:
            yield Reason(
                f"run.aggregation.neighbours is {aggregation.neighbours}, and an honest one of the {inputs} updates of the "
                f"smallest round, {aggregation.byzantine} of them hostile, has {max(most, 0)} honest ones near it",
                (Repair("aggregation.neighbours", 0),),
            )
    if "selected" in c.rule.settings and aggregation.selected + aggregation.byzantine > inputs:
        yield Reason(
            f"run.aggregation.selected is {aggregation.selected}, and of the {inputs} updates of the smallest round "
            f"{aggregation.byzantine} may be hostile",
            (Repair("aggregation.selected", 0),),
        )


def overflow(c: Choices) -> Iterator[Reason]:
    """No sum that the rule may form passes 63 bits."""
    largest, spec = largest_sum(c, c.spec.rounds.max_cohort), c.spec
    if c.mixed and c.mixing.needs_distances and spec.rounds.max_cohort > mixture.LARGEST:
        yield Reason(
            f"mixing {spec.aggregation.mixing} is exact for {mixture.LARGEST} updates, and run.max_cohort is "
            f"{spec.rounds.max_cohort}",
            (Repair("rounds.max_cohort", mixture.LARGEST), Repair("aggregation.mixing", NONE)),
        )
    if largest < HEADROOM:
        return
    cap, cohort = largest_cap(c), largest_cohort(c)
    capped = (Repair("ring.weight_cap", cap),) if cap and spec.ring.weight_cap > cap else ()
    smaller = (Repair("rounds.max_cohort", cohort),) if cohort >= spec.rounds.min_nodes else ()
    yield Reason(
        f"sums of {spec.rounds.max_cohort} updates under the rule {spec.aggregation.rule} may need "
        f"{largest.bit_length()} bits, and 63 are there",
        capped + smaller + c.rules(lambda r: r.linear),
    )


def privacy(c: Choices) -> Iterator[Reason]:
    """Noise that the aggregator adds is measured for a sum in which every update counts alike, and hides single updates."""
    if not c.privacy.central:
        return
    if not c.rule.linear:
        what = (
            f"central privacy bounds what one update moves a sum by, and the rule {c.spec.aggregation.rule} is no sum"
        )
        yield Reason(what, c.rules(lambda r: r.linear))
    if not c.mode.linear:
        what = f"central privacy adds noise to a sum, and mode {c.spec.lora.mode} forms none"
        yield Reason(what, c.modes(lambda m: m.linear))
    if c.spec.aggregation.weights != "equal":
        what = "central privacy needs weights that do not depend on the data, and run.aggregation.weights is examples"
        yield Reason(what, (Repair("aggregation.weights", "equal"),))
    if c.mixed:
        what = (
            f"central privacy bounds what one update moves a sum by, and mixing {c.spec.aggregation.mixing} spreads it"
        )
        yield Reason(what, (Repair("aggregation.mixing", NONE),))
    if c.spec.lora.residual_rank:
        what = "central privacy noises a sum, and a residual is no sum of what nodes send"
        yield Reason(what, (Repair("lora.residual_rank", 0),))
    if c.spec.audit != "off":
        yield Reason(f"central privacy hides updates, and run.audit is {c.spec.audit}", (Repair("audit", "off"),))
