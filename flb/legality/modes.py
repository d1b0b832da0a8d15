# SPDX-License-Identifier: Apache-2.0
"""Rules of legality that the LoRA mode decides: what may follow from which factors are averaged.

Each is a function from the choices of a spec to reasons. It asks what the chosen algorithms declare, never which they are.
"""

from collections.abc import Iterator

from flb.legality.choices import Choices, Reason, Repair
from flb.legality.declarations import NONE
from flb.lora.mean_product import MOST_DIRECTIONS
from flb.spec_sections import RunSpec


def worst_rank(spec: RunSpec) -> int:
    """The rank that an adapter may grow to where every update is stacked: steps · max_cohort · largest rank of a node.
    Adapter 0, whose B is zero, is not part of the stack."""
    return spec.rounds.steps * spec.rounds.max_cohort * max(spec.lora.node_ranks)


def chart(c: Choices) -> Iterator[Reason]:
    """A rule that looks at coordinates needs a mode whose update is linear in the product B·A: a robust mean of A beside
    one of B is no robust mean of B·A, and an attacker may scale one factor against the other."""
    word, mode = c.spec.aggregation.rule, c.spec.lora.mode
    if c.rule.coordinates and (c.mode.both_factors or not c.mode.linear):
        yield Reason(
            f"the rule {word} looks at each coordinate, and in mode {mode} coordinates of A and B are not those of B·A",
            c.modes(lambda m: m.linear and not m.both_factors) + c.rules(lambda r: not r.coordinates),
        )


def ranks(c: Choices) -> Iterator[Reason]:
    """Nodes train at ranks of their own only where products are averaged."""
    lora = c.spec.lora
    if c.ranks_differ and not c.mode.ranks_differ:
        yield Reason(
            f"lora.ranks is {list(lora.ranks)}, and in mode {lora.mode} all nodes train at rank {lora.r}",
            (*c.modes(lambda m: m.ranks_differ), Repair("lora.ranks", ())),
        )


def product_settings(c: Choices) -> Iterator[Reason]:
    """`align` and `energy` belong to a mode that computes new factors of the product."""
    lora, turning = c.spec.lora, c.modes(lambda m: m.turns)
    if lora.align and not c.mode.turns:
        what = f"lora.align is true, and mode {lora.mode} has no factors to turn"
        yield Reason(what, (Repair("lora.align", False), *turning))
    if lora.energy < 1 and not c.mode.turns:
        what = f"lora.energy is {lora.energy}, and mode {lora.mode} keeps every rank"
        yield Reason(what, (Repair("lora.energy", 1.0), *turning))
    if lora.align and c.ranks_differ:
        yield Reason(
            f"lora.align is true and lora.ranks is {list(lora.ranks)}: a node of a lower rank takes the first columns by "
            "singular value, and turning mixes them",
            (Repair("lora.align", False), Repair("lora.ranks", ())),
        )


def without_moments(c: Choices) -> tuple[Repair, ...]:
    """The server optimizers that keep nothing, as repairs."""
    optimizers = c.declarations.optimizers.items()
    return tuple(Repair("server_optimizer.name", word) for word, optimizer in optimizers if not optimizer.moments)


def moments(c: Choices) -> Iterator[Reason]:
    """Moments need factors whose meaning stays from round to round."""
    name, mode = c.spec.server_optimizer.name, c.spec.lora.mode
    without = without_moments(c)
    if not c.optimizer.moments:
        return
    if c.mode.restarts:
        yield Reason(
            f"server optimizer {name} keeps moments, and mode {mode} begins with new factors in every round",
            without + c.modes(lambda m: not m.restarts and not m.turns),
        )
    elif c.mode.turns and not c.spec.lora.align:
        aligned = () if c.ranks_differ else (Repair("lora.align", True),)
        yield Reason(
            f"server optimizer {name} keeps moments, and mode {mode} turns the factors that they belong to",
            aligned + without + c.modes(lambda m: not m.restarts and not m.turns),
        )


def carried(c: Choices) -> Iterator[Reason]:
    """AdamW's moments that a node keeps belong to the factors that it trained before."""
    if c.mode.restarts and c.spec.training.optimizer_state != "reset":
        yield Reason(
            f"training.optimizer_state is {c.spec.training.optimizer_state}, and mode {c.spec.lora.mode} begins with new "
            "factors in every round",
            (Repair("training.optimizer_state", "reset"), *c.modes(lambda m: not m.restarts)),
        )


def residual(c: Choices) -> Iterator[Reason]:
    """The residual is the covariance of A and B over the updates of a mean, at one rank."""
    lora, off = c.spec.lora, Repair("lora.residual_rank", 0)
    if not lora.residual_rank:
        return
    if not (c.mode.linear and c.mode.both_factors):
        yield Reason(
            f"lora.residual_rank is {lora.residual_rank}, and mode {lora.mode} leaves no residual",
            (off, *c.modes(lambda m: m.linear and m.both_factors)),
        )
    elif not c.rule.linear:
        yield Reason(
            f"lora.residual_rank is {lora.residual_rank}, and the residual is that of the mean, not of "
            f"{c.spec.aggregation.rule}",
            (off, *c.rules(lambda r: r.linear)),
        )
    elif c.mixed:
        yield Reason(
            f"lora.residual_rank is {lora.residual_rank}, and the residual is that of the updates, not of mixed ones",
            (off, Repair("aggregation.mixing", NONE)),
        )
    elif c.optimizer.moments:
        yield Reason(
            f"lora.residual_rank is {lora.residual_rank}, and the residual goes with the mean of the factors, which the "
            f"moments of {c.spec.server_optimizer.name} change",
            (off, *without_moments(c)),
        )


def directions(c: Choices) -> Iterator[Reason]:
    """Products are averaged through Gram matrices over the directions of a whole cohort, which must fit."""
    lora, cohort = c.spec.lora, c.spec.rounds.max_cohort
    largest = (MOST_DIRECTIONS - lora.r - lora.residual_rank) // max(lora.node_ranks)
    if not (c.mode.turns or lora.residual_rank) or cohort <= largest:
        return
    what = f"run.max_cohort is {cohort}, and the products of at most {largest} nodes can be averaged"
    plain = (Repair("lora.residual_rank", 0),) if lora.residual_rank else c.modes(lambda m: not m.turns)
    fits = (Repair("rounds.max_cohort", largest),) if largest >= c.spec.rounds.min_nodes else ()
    yield Reason(what, (*fits, *plain))


def whole_steps(c: Choices) -> Iterator[Reason]:
    """Updates that are stacked are taken as they are: there is no step that a learning rate could scale."""
    rate, mode = c.spec.server_optimizer.learning_rate, c.spec.lora.mode
    if c.mode.restarts and not c.optimizer.moments and rate != 1:
        yield Reason(
            f"run.server_optimizer.learning_rate is {rate:g}, and mode {mode} takes the mean as it is",
            (Repair("server_optimizer.learning_rate", 1.0), *c.modes(lambda other: not other.restarts)),
        )


def growth(c: Choices) -> Iterator[Reason]:
    """A mode with new factors in every round grows by the ranks of a whole cohort each time; `max_rank` bounds it."""
    lora, rounds = c.spec.lora, c.spec.rounds
    if not c.mode.restarts:
        if lora.max_rank:
            what = f"lora.max_rank is {lora.max_rank}, and in mode {lora.mode} the rank does not grow"
            yield Reason(what, (Repair("lora.max_rank", 0), *c.modes(lambda m: m.restarts)))
        return
    most = worst_rank(c.spec)
    if lora.max_rank >= most:
        return
    room = lora.max_rank
    smaller = (
        Repair("rounds.max_cohort", room // (rounds.steps * max(lora.node_ranks))),
        Repair("rounds.steps", room // (rounds.max_cohort * max(lora.node_ranks))),
    )
    fitting = tuple(r for r in smaller if r.value >= (rounds.min_nodes if r.setting == "rounds.max_cohort" else 1))
    yield Reason(
        f"mode {lora.mode} may grow to rank {most} ({rounds.steps} rounds of {rounds.max_cohort} nodes at rank "
        f"{max(lora.node_ranks)}), and lora.max_rank is {lora.max_rank}",
        (*fitting, Repair("lora.max_rank", most), *c.modes(lambda m: not m.restarts)),
    )


def down(c: Choices) -> Iterator[Reason]:
    """The encoded step is added to an adapter of the same factors, element by element."""
    lora, plain = c.spec.lora, Repair("down", "f32")
    if not c.spec.encodes_steps:
        return
    if not c.mode.linear:
        yield Reason(
            f"run.down {c.spec.down} sends the step of each factor, and mode {lora.mode} computes new factors",
            (plain, *c.modes(lambda m: m.linear)),
        )
    elif lora.residual_rank:
        yield Reason(
            f"run.down {c.spec.down} sends the step of each factor, and lora.residual_rank computes new frozen ones",
            (plain, Repair("lora.residual_rank", 0)),
        )
