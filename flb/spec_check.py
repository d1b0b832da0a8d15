# SPDX-License-Identifier: Apache-2.0
"""What each field of a run spec may hold. Which values go together is said by `flb.planner`."""

import math

from flb.errors import Refused
from flb.spec_sections import (
    AGGREGATION_RULES,
    DOWN,
    LR_SCHEDULES,
    MIXINGS,
    OBJECTIVES,
    OPTIMIZER_STATES,
    PRIVACY_MECHANISMS,
    SCORING_RULES,
    SERVER_OPTIMIZERS,
    WEIGHTS,
    AggregationSpec,
    LoraSpec,
    PrivacySpec,
    RunSpec,
    ScoringSpec,
    ServerOptimizerSpec,
    TrainingSpec,
)
from flb.types import Codec, LoraMode

LARGEST_STEP = 2.0**100
"""Largest size of a value of a step that travels encoded: it and its remainder stay far below 2^126 (docs/arithmetic.md
4)."""


def check(spec: RunSpec) -> None:
    """Refuse a spec whose numbers break the proofs of docs/arithmetic.md 1, or that this version can't run."""
    ring = spec.ring
    for name, bound in (("value_bound", ring.value_bound), ("norm_bound", ring.norm_bound)):
        if bound < 1 or bound & (bound - 1):
            raise Refused(f"ring.{name} is {bound}", "choose a power of two")
    if not 8 <= ring.fraction_bits <= 40:
        raise Refused(f"ring.fraction_bits is {ring.fraction_bits}", "choose 8 to 40")
    if spec.rounds.max_cohort < 1:
        raise Refused(f"rounds.max_cohort is {spec.rounds.max_cohort}", "choose at least 1")
    room = 2**63 // (ring.value_bound * 2**ring.fraction_bits * spec.rounds.max_cohort)
    if not 1 <= ring.weight_cap < room:
        raise Refused(
            f"a weight cap of {ring.weight_cap} with {spec.rounds.max_cohort} nodes may overflow 63 bits",
            f"choose a weight cap of at most {max(room - 1, 0)}",
        )
    if spec.codec not in {codec.name.lower() for codec in Codec}:
        raise Refused(f"codec {spec.codec!r} is unknown", "choose f32, bf16, mxint8 or mxint4")
    if spec.down not in DOWN:
        raise Refused(f"down {spec.down!r} is unknown", "choose f32 or mxint8")
    reached = reach(spec.server_optimizer, ring.value_bound, ring.fraction_bits)
    if spec.encodes_steps and not reached <= LARGEST_STEP:
        raise Refused(f"a step may reach {reached:g}, which down: {spec.down} cannot encode", "lower the learning rate")
    if spec.lora.mode not in set(LoraMode):
        raise Refused(f"LoRA mode {spec.lora.mode!r} is unknown", f"choose {one_of(tuple(LoraMode))}")
    check_lora(spec.lora)
    check_aggregation(spec.aggregation)
    check_server_optimizer(spec.server_optimizer)
    check_privacy(spec.privacy)
    if spec.audit not in ("members", "public", "off"):
        raise Refused(f"audit {spec.audit!r} is unknown", "choose members, public or off")
    if (
        spec.rounds.steps < 1
        or spec.rounds.round_seconds < 1
        or not 1 <= spec.rounds.min_nodes <= spec.rounds.max_cohort
    ):
        raise Refused(
            "rounds.steps, round_seconds and min_nodes must be at least 1, min_nodes at most max_cohort", "correct them"
        )
    if not 0 < spec.rounds.fraction <= 1:
        raise Refused(f"rounds.fraction is {spec.rounds.fraction}", "choose a number above 0 and at most 1")
    check_training(spec.training, spec.rounds.steps)
    check_scoring(spec.scoring, spec.rounds.steps)
    names = [tensor.name for tensor in spec.tensors]
    if not names or names != sorted(set(names), key=str.encode):
        raise Refused("the tensors of the run spec are not sorted by name", "make the spec with flb chain deploy")
    if any(extent < 1 for tensor in spec.tensors for extent in tensor.shape):
        raise Refused("a tensor of the run spec has no elements", "make the spec with flb chain deploy")
    if any(name.endswith(".scale") for name in names):
        raise Refused("a tensor of the run spec is named like a codec's scales", "let no name end in .scale")


def check_lora(lora: LoraSpec) -> None:
    """Refuse numbers that no adapter has. Which of them go together says `flb.planner`."""
    ranks = lora.ranks
    if list(ranks) != sorted(set(ranks)) or any(not 1 <= rank <= lora.r for rank in ranks):
        raise Refused(f"lora.ranks is {list(ranks)}", f"list different ranks from 1 to lora.r ({lora.r}), rising")
    if not 0 < lora.energy <= 1:
        raise Refused(f"lora.energy is {lora.energy}", "choose a share above 0 and at most 1")
    if lora.residual_rank < 0 or lora.max_rank < 0:
        raise Refused("lora.residual_rank or lora.max_rank is negative", "choose 0 or more")


def check_aggregation(aggregation: AggregationSpec) -> None:
    """Refuse a word that this version does not know, and numbers that no rule has."""
    words = (("rule", AGGREGATION_RULES), ("mixing", MIXINGS), ("weights", WEIGHTS))
    for name, known in words:
        if (word := getattr(aggregation, name)) not in known:
            raise Refused(f"aggregation.{name} {word!r} is unknown", f"choose {one_of(known)}")
    for name in ("byzantine", "neighbours", "selected", "iterations", "bucket"):
        if (number := getattr(aggregation, name)) < 0:
            raise Refused(f"aggregation.{name} is {number}", "choose 0 or more")
    if not 0 <= aggregation.radius < math.inf:
        raise Refused(f"aggregation.radius is {aggregation.radius}", "choose a number of at least 0")


def check_server_optimizer(optimizer: ServerOptimizerSpec) -> None:
    """Refuse an optimizer that is not there, and constants outside its domain."""
    if optimizer.name not in SERVER_OPTIMIZERS:
        raise Refused(f"server optimizer {optimizer.name!r} is unknown", f"choose {one_of(SERVER_OPTIMIZERS)}")
    for name in ("momentum", "beta2"):
        if not 0 <= (value := getattr(optimizer, name)) < 1:
            raise Refused(f"server_optimizer.{name} is {value}", "choose a number from 0 to below 1")
    for name in ("learning_rate", "tau", "tau_scale"):
        if not 0 <= (value := getattr(optimizer, name)) < math.inf:
            raise Refused(f"server_optimizer.{name} is {value}", "choose a number of at least 0")


def reach(optimizer: ServerOptimizerSpec, value_bound: int, fraction_bits: int) -> float:
    """Largest size of a value of a step, for means of at most `value_bound`: |m| is at most that of undamped momentum,
    value_bound / (1 - β), and √v + τ is at least τ. The least τ that is chosen by itself is 2^-fraction_bits."""
    divisor = {"momentum": 1 - optimizer.momentum, "nesterov": 1 - optimizer.momentum}
    least = min(1.0, optimizer.tau or 2.0**-fraction_bits) if optimizer.name in ("adagrad", "adam", "yogi") else 1.0
    return optimizer.learning_rate * value_bound / divisor.get(optimizer.name, 1.0) / least


def check_privacy(privacy: PrivacySpec) -> None:
    """Refuse a mechanism that nobody knows, and numbers that protect nothing."""
    if privacy.mechanism not in PRIVACY_MECHANISMS:
        raise Refused(f"privacy.mechanism {privacy.mechanism!r} is unknown", f"choose {one_of(PRIVACY_MECHANISMS)}")
    if privacy.mechanism == "none":
        if privacy != PrivacySpec():
            raise Refused("the run spec has numbers for privacy, and no mechanism", "set them to 0, or choose one")
        return
    for name in ("clip_norm", "noise_multiplier"):
        if not 0 < (value := getattr(privacy, name)) < math.inf:
            raise Refused(f"privacy.{name} is {value}", "choose a number above 0")
    if not 0 <= privacy.epsilon < math.inf or not 0 < privacy.delta < 1:
        raise Refused(
            f"privacy.epsilon is {privacy.epsilon}, privacy.delta {privacy.delta}",
            "choose an epsilon of 0 (no budget) or above, and a delta between 0 and 1",
        )
    adaptive = privacy.mechanism == "central_adaptive"
    if (privacy.denominator >= 1) != privacy.central or privacy.denominator < 0:
        raise Refused(
            f"privacy.denominator is {privacy.denominator} with the mechanism {privacy.mechanism}",
            "choose the number of updates that a round is expected to have; 0 without central privacy",
        )
    numbers = (privacy.quantile, privacy.rate, privacy.bits_noise)
    if any(number != 0 for number in numbers) != adaptive or (
        adaptive and not (0 < numbers[0] < 1 and 0 < numbers[1] < math.inf and 0 < numbers[2] < math.inf)
    ):
        raise Refused(
            f"privacy.quantile, rate and bits_noise are {', '.join(map(str, numbers))}",
            "choose a quantile between 0 and 1 and the others above 0 for central_adaptive, 0 for other mechanisms",
        )


def one_of(words: tuple[str, ...]) -> str:
    """`a, b or c`."""
    return f"{', '.join(words[:-1])} or {words[-1]}"


def check_training(training: TrainingSpec, steps: int) -> None:
    """Refuse a word that this version does not know, and numbers that leave no training."""
    words = (("objective", OBJECTIVES), ("lr_schedule", LR_SCHEDULES), ("optimizer_state", OPTIMIZER_STATES))
    for name, known in words:
        if (word := getattr(training, name)) not in known:
            raise Refused(f"training.{name} {word!r} is unknown", f"choose {one_of(known)}")
    if training.local_steps < 1 or training.batch_size < 1 or training.max_length < 2:
        raise Refused("training.local_steps and batch_size must be at least 1, max_length at least 2", "correct them")
    if training.local_epochs < 0 or not 0 <= training.warmup_steps <= steps * training.local_steps:
        raise Refused(
            f"training.local_epochs is {training.local_epochs}, training.warmup_steps {training.warmup_steps}",
            f"choose 0 or more, and at most the run's {steps * training.local_steps} optimizer steps of warm-up",
        )
    if not training.learning_rate >= 0 or not training.fedprox_mu >= 0 or not training.dpo_beta > 0:
        raise Refused(
            "training.learning_rate and fedprox_mu must not be negative, dpo_beta must be above 0", "correct them"
        )


def check_scoring(scoring: ScoringSpec, steps: int) -> None:
    """Refuse a rule that is not there, and a payout whose sum over all steps does not fit the contract's uint256."""
    if scoring.rule not in SCORING_RULES:
        raise Refused(f"scoring rule {scoring.rule!r} is unknown", f"choose {' or '.join(SCORING_RULES)}")
    written = scoring.round_payout
    if not (written.isascii() and written.isdigit() and len(written) <= 78 and str(int(written)) == written):
        raise Refused("scoring.round_payout is no whole number", "write decimal digits, without zeros in front")
    if scoring.payout * steps >= 2**256:
        raise Refused(f"{steps} rounds that pay {written} each do not fit 256 bits", "lower run.payout.per_round")
