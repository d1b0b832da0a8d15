# SPDX-License-Identifier: Apache-2.0
"""The form of the run spec: its sections, their fields and words. Reading is `flb.spec`, refusing `flb.spec_check`."""

import json
import math
from dataclasses import asdict, dataclass

import rfc8785

from flb.types import Codec, LoraMode, TensorSpec

VERSION = 4
SCORING_RULES = ("capped_examples", "uploads_bytes_examples")
"""How a round is scored: the files of `flb.scoring`."""
DOWN = ("f32", "mxint8")
"""How nodes get the next adapter: whole, or as the encoded step that makes it from the one before."""
OBJECTIVES = ("sft", "dpo")
"""What local training learns from: completions, or pairs of a chosen and a rejected one."""
LR_SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZER_STATES = ("reset", "keep")
"""AdamW's moments at the start of a step: zero, or those that the node's last training left."""
AGGREGATION_RULES = (
    "mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound"
)  # fmt: skip
MIXINGS = ("none", "nearest_neighbours", "bucketing")
WEIGHTS = ("examples", "equal")
PRIVACY_MECHANISMS = ("none", "local", "central_fixed", "central_adaptive", "example")
"""Who adds noise, to what: nobody, each node to its update, the aggregator to the sum, each node to its gradients."""
CENTRAL_MECHANISMS = ("central_fixed", "central_adaptive")
SERVER_OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "adam", "yogi")


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
    """Shape of the adapter, and how factors become a mean. `target_modules` are the resolved names, never a pattern.

    `rslora` scales by 1/√r (Kalajdzievski, arXiv 2312.03732). `ranks` are the ranks that nodes may train at, in rising
    order; none means `r` alone. Mode `product` keeps the least rank whose squared singular values hold the share
    `energy`, and turns its factors towards the adapter before where `align` is set. Mode `factors` with `residual_rank`
    above 0 carries what factor averaging loses in so many frozen ranks (FedEx-LoRA, arXiv 2410.09432). `max_rank`
    bounds what mode `stack` grows to."""

    mode: str
    r: int
    alpha: int
    dropout: float
    target_modules: tuple[str, ...]
    rslora: bool = False
    ranks: tuple[int, ...] = ()
    energy: float = 1.0
    align: bool = False
    residual_rank: int = 0
    max_rank: int = 0

    @property
    def scale(self) -> float:
        """What B·A is multiplied by, the same at every rank: a node of another rank sets its alpha to keep it."""
        return self.alpha / (math.sqrt(self.r) if self.rslora else self.r)

    @property
    def node_ranks(self) -> tuple[int, ...]:
        """The ranks that nodes may train at."""
        return self.ranks or (self.r,)


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
class AggregationSpec:
    """How admitted updates become one: `rule` is a file of `flb.aggregation`, `mixing` what comes before it.

    `byzantine` is f, how many of the updates may be hostile. `neighbours` of Krum and nearest-neighbour mixing, 0 for
    the paper's; `selected` is m of Multi-Krum, 0 for n - f; `iterations` of the geometric median and of centered clipping, 0 for the
    rule's own; `radius` is what centered clipping multiplies the median distance by, and what `norm_bound` multiplies
    the median norm by, 0 for the rule's own; `bucket` is the size of a bucket. `weights` is `examples` (capped) or
    `equal`."""

    rule: str = "mean"
    byzantine: int = 0
    neighbours: int = 0
    selected: int = 0
    iterations: int = 0
    radius: float = 0.0
    mixing: str = "none"
    bucket: int = 0
    weights: str = "examples"


@dataclass(frozen=True, slots=True)
class ServerOptimizerSpec:
    """How the mean update becomes a step of the adapter: a file of `flb.server_optimizer`.

    `momentum` is β₁ and `beta2` β₂ of Reddi et al. (arXiv 2003.00295); `tau` is τ, 0 for `tau_scale` times the root
    mean square of the first mean."""

    name: str
    learning_rate: float
    momentum: float = 0.9
    beta2: float = 0.99
    tau: float = 0.0
    tau_scale: float = 0.1


@dataclass(frozen=True, slots=True)
class PrivacySpec:
    """How updates are kept private (docs/privacy.md): `clip_norm` is C, `noise_multiplier` the noise's deviation σ over C.

    `epsilon` is the budget of the whole run at `delta`; an `epsilon` of 0 is none, and what was spent is then told at
    `delta` alone. Central mechanisms divide the noised sum by `denominator`, whoever came. `central_adaptive` starts from
    `clip_norm` and follows `quantile` at `rate`, with noise of deviation `bits_noise` on the count of unclipped updates;
    `noise_multiplier` is then what both releases cost together. What a mechanism does not use is 0."""

    mechanism: str = "none"
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    denominator: int = 0
    quantile: float = 0.0
    rate: float = 0.0
    bits_noise: float = 0.0

    @property
    def central(self) -> bool:
        """Whether the aggregator clips and adds the noise."""
        return self.mechanism in CENTRAL_MECHANISMS

    @property
    def sigma(self) -> float:
        """The noise's deviation in units of an update's values, for reports; the ring has it exactly."""
        return self.noise_multiplier * self.clip_norm


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
    aggregation: AggregationSpec
    server_optimizer: ServerOptimizerSpec
    scoring: ScoringSpec
    codec: str
    down: str
    audit: str
    salt: str
    privacy: PrivacySpec = PrivacySpec()

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
