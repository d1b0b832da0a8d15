# SPDX-License-Identifier: Apache-2.0
"""The run spec: everything that nodes must agree on, as canonical JSON (RFC 8785) whose SHA-256 is on chain.

A spec is read strictly: unknown, missing or mistyped fields are refused, so that two programs never read the same
digest differently.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Any, get_type_hints

import rfc8785

from flb.errors import BadMessage, Refused
from flb.types import Codec, Digest, LoraMode, TensorSpec

VERSION = 3
LARGEST = 10**21
"""From here on RFC 8785 writes floats with an exponent, so no integer of a canonical text is larger."""
RULES = ("capped_examples", "uploads_bytes_examples")
"""How a round is scored: the files of `flb.scoring`."""
DOWN = ("f32", "mxint8")
"""How nodes get the next adapter: whole, or as the encoded step that makes it from the one before."""
OBJECTIVES = ("sft", "dpo")
"""What local training learns from: completions, or pairs of a chosen and a rejected one."""
LR_SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZER_STATES = ("reset", "keep")
"""AdamW's moments at the start of a step: zero, or those that the node's last training left."""
LARGEST_STEP = 2.0**100
"""Largest size of a value of a step that travels encoded: it and its remainder stay far below 2^126 (docs/arithmetic.md
4)."""


@dataclass(frozen=True, slots=True)
class BaseSpec:
    """The base model: a name for people, and the digest of its weights (`flb.base_model`). `repo` and `revision` say where
    it can be downloaded, owner/name and commit on the Hugging Face hub; empty where the operator did not say."""

    name: str
    digest: str
    repo: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """Shape of the adapter. `target_modules` are the resolved module names, never a pattern."""

    mode: str
    r: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """Local training of one step: `local_steps` optimizer steps of `batch_size` examples of `max_length` tokens.

    With `local_epochs` above 0 it is so many passes over the node's own examples, and `local_steps` the most optimizer
    steps. `learning_rate` is the peak of `lr_schedule`, which goes over the whole run (`flb_node.lr_schedule`).
    `fedprox_mu` is the weight of FedProx's proximal term (Li et al., 2020), `dpo_beta` beta of DPO (Rafailov et al.,
    2023). Where the optimizer's state is kept, it is the node's own and never leaves it."""

    local_steps: int
    batch_size: int
    learning_rate: float
    max_length: int
    seed: int
    objective: str = "sft"
    local_epochs: int = 0
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    fedprox_mu: float = 0.0
    dpo_beta: float = 0.1
    optimizer_state: str = "reset"


@dataclass(frozen=True, slots=True)
class RingSpec:
    """The integers (docs/arithmetic.md 1): unit 2^-`fraction_bits`, |value| at most `value_bound`, weight at most
    `weight_cap`, norm of an update at most `norm_bound`; both bounds are powers of two."""

    fraction_bits: int
    value_bound: int
    weight_cap: int
    norm_bound: int


@dataclass(frozen=True, slots=True)
class RoundSpec:
    """`steps` rounds to seal; who is drawn and how many at most, how long intake and grace last, in seconds, and when
    a block counts as final."""

    steps: int
    round_seconds: int
    grace_seconds: int
    min_nodes: int
    fraction: float
    confirmations: int
    max_cohort: int


@dataclass(frozen=True, slots=True)
class ServerOptimizerSpec:
    """How the mean update becomes a step of the adapter."""

    name: str
    learning_rate: float


@dataclass(frozen=True, slots=True)
class ScoringSpec:
    """How a round is scored, and what it pays: `round_payout` in base units of the run's token, decimal digits in a text
    since RFC 8785 has no integers beyond 2^53; "0" pays nothing."""

    rule: str
    round_payout: str

    @property
    def payout(self) -> int:
        """What all nodes of one round get together, at most, in base units of the token."""
        return int(self.round_payout)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """The whole spec. `adapter` is the digest of adapter 0, `down` how nodes get the next adapter (`flb.down`), `salt` 32
    random bytes in hex, `audit` who may read update blobs."""

    version: int
    base: BaseSpec
    lora: LoraSpec
    tensors: tuple[TensorSpec, ...]
    adapter: str
    training: TrainingSpec
    ring: RingSpec
    rounds: RoundSpec
    server_optimizer: ServerOptimizerSpec
    scoring: ScoringSpec
    codec: str
    down: str
    audit: str
    salt: str

    def encode(self) -> bytes:
        """Canonical JSON."""
        return rfc8785.dumps(json.loads(json.dumps(asdict(self))))

    @property
    def wire_codec(self) -> Codec:
        """The codec of updates."""
        return Codec[self.codec.upper()]

    @property
    def encodes_steps(self) -> bool:
        """Whether nodes get encoded steps, not whole adapters."""
        return self.down != "f32"

    @property
    def lora_mode(self) -> LoraMode:
        """The LoRA mode."""
        return LoraMode(self.lora.mode)


def digest_of(encoded: bytes) -> Digest:
    """SHA-256 of a spec's canonical bytes."""
    return Digest(hashlib.sha256(encoded).digest())


def _read(kind: Any, value: object, path: str) -> Any:
    """Read one JSON value as `kind`; raises BadMessage with the path of the field."""
    if getattr(kind, "__dataclass_fields__", None) is not None:
        if not isinstance(value, dict):
            raise BadMessage(f"run spec: {path or 'the whole'} is not an object")
        hints = get_type_hints(kind)
        names = [field.name for field in fields(kind)]
        for name in sorted(set(value) ^ set(names)):
            shown = path + name.encode("unicode_escape").decode()
            raise BadMessage(f"run spec: field {shown} is {'missing' if name in names else 'unknown'}")
        return kind(**{name: _read(hints[name], value[name], f"{path}{name}.") for name in names})
    if getattr(kind, "__origin__", None) is tuple:
        if not isinstance(value, list):
            raise BadMessage(f"run spec: {path} is not a list")
        return tuple(_read(kind.__args__[0], item, path) for item in value)
    if kind is float and type(value) is int and abs(value) < LARGEST:
        return float(value)
    if type(value) is not kind:
        raise BadMessage(f"run spec: {path} is not of type {kind.__name__}")
    return value


def decode(encoded: bytes) -> RunSpec:
    """Read and check a spec. Raises BadMessage for a wrong form, Refused for values that break the arithmetic."""
    try:
        value = json.loads(encoded)
    except (ValueError, RecursionError) as error:
        raise BadMessage("run spec: not JSON", "ask the operator for the file that was deployed") from error
    version = value.get("version") if isinstance(value, dict) else None
    if type(version) is int and version != VERSION:  # before the fields, which differ from version to version
        raise BadMessage(f"run spec: version {version}, this program reads {VERSION}", "update FLB")
    spec: RunSpec = _read(RunSpec, value, "")
    try:
        canonical = spec.encode()
    except ValueError:  # NaN, an integer beyond 2^53, half a surrogate pair: JSON for Python, not for RFC 8785
        canonical = b""
    if canonical != encoded:
        raise BadMessage("run spec: not canonical JSON (RFC 8785)", "ask the operator for the file that was deployed")
    check(spec)
    return spec


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
    reach = abs(spec.server_optimizer.learning_rate) * ring.value_bound
    if spec.encodes_steps and not reach <= LARGEST_STEP:
        raise Refused(f"a step may reach {reach:g}, which down: {spec.down} cannot encode", "lower the learning rate")
    if spec.lora.mode not in set(LoraMode):
        raise Refused(f"LoRA mode {spec.lora.mode!r} is unknown", "choose factors or alternate")
    if spec.server_optimizer.name != "sgd":
        raise Refused(f"server optimizer {spec.server_optimizer.name!r} is unknown", "choose sgd")
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


def check_training(training: TrainingSpec, steps: int) -> None:
    """Refuse a word that this version does not know, and numbers that leave no training."""
    words = (("objective", OBJECTIVES), ("lr_schedule", LR_SCHEDULES), ("optimizer_state", OPTIMIZER_STATES))
    for name, known in words:
        if (word := getattr(training, name)) not in known:
            raise Refused(f"training.{name} {word!r} is unknown", f"choose {', '.join(known[:-1])} or {known[-1]}")
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
    if scoring.rule not in RULES:
        raise Refused(f"scoring rule {scoring.rule!r} is unknown", f"choose {' or '.join(RULES)}")
    written = scoring.round_payout
    if not (written.isascii() and written.isdigit() and len(written) <= 78 and str(int(written)) == written):
        raise Refused("scoring.round_payout is no whole number", "write decimal digits, without zeros in front")
    if scoring.payout * steps >= 2**256:
        raise Refused(f"{steps} rounds that pay {written} each do not fit 256 bits", "lower run.payout.per_round")
