# SPDX-License-Identifier: Apache-2.0
"""From settings to a run spec: resolves `auto`, and refuses what would not work, before anything is deployed."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from flb.errors import Refused
from flb.legality import reasons, refuse_illegal
from flb.lora.layout import adapter_tensors, module_names, resolve
from flb.privacy import central, local
from flb.records import RING
from flb.spec import (
    VERSION,
    AggregationSpec,
    BaseSpec,
    LoraSpec,
    PrivacySpec,
    RingSpec,
    RoundSpec,
    RunSpec,
    ScoringSpec,
    ServerOptimizerSpec,
    TrainingSpec,
    check,
    decode,
)
from flb.types import TensorSpec

FRACTION_BITS = 32
"""F of docs/arithmetic.md 1."""
MAX_COHORT = 4096
"""Most nodes in a round where the settings say `auto` and allow so many."""
HELD_ROUNDS = RING - 1
"""A payout can be activated until so many more rounds were sealed."""


def norm_bound(training: TrainingSpec, tensors: Iterable[TensorSpec]) -> int:
    """Least power of two that is at least peak learning rate · local steps · √P.

    Adam moves a coordinate by about the learning rate a step, so an honest update stays at about a quarter of it.
    """
    parameters = sum(tensor.size for tensor in tensors)
    reach = training.learning_rate * training.local_steps * math.sqrt(parameters)
    return max(1, 1 << max(0, math.ceil(math.log2(reach)))) if reach > 0 else 1


def plan_tensors(
    base: Iterable[TensorSpec], wanted: str | tuple[str, ...], r: int, model_type: str = ""
) -> tuple[tuple[str, ...], tuple[TensorSpec, ...]]:
    """Resolved target modules, and the adapter's tensors. `model_type` is the base's, from its config.json.

    Raises Refused for a name that matches nothing and for a rank below 1.
    """
    modules = resolve(base, wanted, model_type)
    tensors = adapter_tensors(modules, r)
    if any(min(tensor.shape) < 1 for tensor in tensors):
        raise Refused(f"lora.r is {r}", "choose at least 1")
    return module_names(modules), tensors


def draft_spec(
    *,
    base: BaseSpec,
    lora: LoraSpec,
    tensors: tuple[TensorSpec, ...],
    adapter: str,
    training: TrainingSpec,
    rounds: RoundSpec,
    aggregation: AggregationSpec,
    server_optimizer: ServerOptimizerSpec,
    scoring: ScoringSpec,
    codec: str,
    down: str,
    audit: str,
    value_bound: int,
    weight_cap: int,
    norm: int | None,
    open_membership: bool,
    salt: str,
    privacy: PrivacySpec | None = None,
) -> RunSpec:
    """The spec, each of whose values is possible; whether they go together is `flb.legality`'s to say, so that a plan can
    show what is wrong. `norm` None means `norm_bound`, or what the noise of `privacy` needs, which may raise
    `value_bound` too. Raises Refused."""
    if open_membership and audit == "members":
        audit = "off"  # members would mean everybody; only an explicit `public` publishes updates
    if privacy is not None and privacy.central and audit == "members":
        audit = "off"  # nobody sees an update; an explicit `public` is refused
    ring = RingSpec(FRACTION_BITS, value_bound, weight_cap, norm or norm_bound(training, tensors))
    if privacy is not None and privacy.mechanism == "local":
        ring = local.widened(ring, privacy, local.parameters_of(tensors), fixed_norm=norm is not None)
    spec = RunSpec(
        version=VERSION,
        base=base,
        lora=lora,
        tensors=tensors,
        adapter=adapter,
        training=training,
        ring=ring,
        rounds=rounds,
        aggregation=aggregation,
        server_optimizer=server_optimizer,
        scoring=scoring,
        codec=codec,
        down=down,
        audit=audit,
        salt=salt,
        privacy=privacy or PrivacySpec(),
    )
    check(spec)
    local.check(spec)
    central.check(spec)
    return spec


def fit_cohort(spec: RunSpec) -> RunSpec:
    """The spec with the largest `max_cohort` that its other choices allow, at most its own: what `auto` means. Reasons that
    no smaller cohort ends stay."""
    sizes = [
        repair.value
        for reason in reasons(spec)
        for repair in reason.repairs
        if repair.setting == "rounds.max_cohort" and spec.rounds.min_nodes <= repair.value < spec.rounds.max_cohort
    ]
    return fit_cohort(replace(spec, rounds=replace(spec.rounds, max_cohort=min(sizes)))) if sizes else spec


def make_spec(**settings: Any) -> RunSpec:
    """The spec of `draft_spec`'s settings. Raises Refused for values that are not possible or do not go together."""
    spec = draft_spec(**settings)
    refuse_illegal(spec)
    return spec


def read_spec(encoded: bytes) -> RunSpec:
    """Read the spec of a run that one takes part in, which anybody may have made by hand. Raises BadMessage for a wrong
    form, Refused for values that are not possible or do not go together."""
    spec = decode(encoded)
    local.check(spec)
    central.check(spec)
    refuse_illegal(spec)
    return spec


def plan_pay(
    *,
    token: bool,
    per_round: int,
    delay_seconds: int,
    min_round_seconds: int | None,
    round_seconds: int,
    open_membership: bool,
) -> tuple[int, int]:
    """(minRoundSeconds, payoutDelaySeconds) of the contract. Raises Refused for payouts that it would refuse.

    A payout waits `delay_seconds` after its round was sealed, and its record hash must still be in the ring then. None
    for `min_round_seconds` means the least that allows it, and 0 where nothing is paid.
    """
    if not token:
        if per_round:
            raise Refused(f"run.payout.per_round is {per_round}, but there is no token", "set run.payout.token")
        least, delay_seconds = min_round_seconds or 0, 0
    else:
        if open_membership:
            raise Refused(
                "payouts need admission: with open membership one operator can be any number of nodes",
                "set run.membership to admission, or leave run.payout.token out",
            )
        least = -(-delay_seconds // HELD_ROUNDS) if min_round_seconds is None else min_round_seconds
    if delay_seconds > HELD_ROUNDS * min(least, round_seconds):
        longest = HELD_ROUNDS * (round_seconds if min_round_seconds is None else min(least, round_seconds))
        raise Refused(
            f"run.payout.delay_seconds is {delay_seconds}, the longest for these rounds is {longest}",
            "lower it, or raise run.min_round_seconds or run.round_seconds",
        )
    if least > round_seconds:
        raise Refused(
            f"run.min_round_seconds is {least}, run.round_seconds {round_seconds}", "let it be at most the round"
        )
    return least, delay_seconds
