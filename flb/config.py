# SPDX-License-Identifier: Apache-2.0
"""Every setting, as one tree of frozen values: name, default, unit and meaning in one place.

config.yaml has exactly these keys; `flb init` writes them with their comments. The core never imports this module.
Reading and checking a file is `flb.config_file`.
"""

from dataclasses import Field, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from flb.dataset_config import DatasetConfig
from flb.errors import ConfigError
from flb.method_config import AggregationConfig, LoraConfig, ServerOptimizerConfig, TrainingConfig, setting
from flb.partition_config import PartitionConfig


def text_of(item: "Field[Any]") -> str:
    """The comment of a field."""
    return str(item.metadata.get("text", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteCode:
    """Whose Python files in the base model's folder may run."""

    name: str = setting("", "repository, as flb model pull takes it: owner/name")
    revision: str = setting("", "commit, 40 hex digits; a branch would let its owner change the code")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The base model on this device."""

    model_path: Path | None = setting(None, "folder of the base model, with *.safetensors and tokenizer")
    quantization: Literal[8, 4] | None = setting(
        None, "bits of the base on this device: 8 (int8), 4 (NF4), or null; nodes of one run may differ"
    )
    device_map: Literal["auto", "cpu", "cuda", "mps"] = setting("auto", "where to train: auto, cpu, cuda or mps")
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto", "compute type: auto measures one step of float32 and bfloat16 and keeps the faster"
    )
    trust_remote_code: RemoteCode | None = setting(
        None, "null, or name and revision of the model whose own code may run: {name: owner/name, revision: COMMIT}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """How a round is scored; everybody can recompute it."""

    rule: Literal["capped_examples", "uploads_bytes_examples"] = setting(
        "capped_examples", "capped_examples (what an update weighs) or uploads_bytes_examples (historic, easily gamed)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutConfig:
    """What nodes are paid, in proportion to their scores; needs membership by admission."""

    token: str | None = setting(None, "address of the ERC-20 token; null pays nothing")
    per_round: int = setting(0, "what a sealed round pays to all its nodes together, in the token's smallest unit")
    delay_seconds: int = setting(86400, "time after a round is sealed until its payout can be claimed, in seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """What the operator fixes for the whole run."""

    steps: int = setting(3, "rounds to seal")
    round_seconds: int = setting(3600, "intake of a round, in seconds")
    min_round_seconds: int | None = setting(
        None, "least length of a round, in seconds; null: 0 without a token, else what the payout delay needs"
    )
    grace_seconds: int = setting(3600, "time after that until a round below quorum is void, in seconds")
    min_nodes: int = setting(2, "least number of updates for an adapter")
    fraction: float = setting(1.0, "share of the members drawn for a round, above 0 to 1")
    confirmations: int = setting(0, "blocks on top of one that counts; 0 is right for a local chain only")
    codec: Literal["f32", "bf16", "mxint8", "mxint4"] = setting(
        "mxint8", "how updates are written: mxint8 (a quarter of f32's bytes), mxint4, bf16 or f32"
    )
    down: Literal["f32", "mxint8"] = setting(
        "f32", "how nodes get the next adapter: f32 (whole) or mxint8 (the encoded step, a quarter of the bytes)"
    )
    membership: Literal["admission", "open"] = setting(
        "admission", "who may join: admission (whom the admitter invites) or open (anybody)"
    )
    admitter: str | None = setting(None, "address of the account that signs invites; null: the owner")
    audit: Literal["members", "public", "off"] = setting(
        "members", "who may read updates of sealed rounds; with open membership, members means off"
    )
    weight_cap: int = setting(65536, "most examples that one node counts for")
    max_cohort: int | Literal["auto"] = setting(
        "auto", "most nodes in a round; auto: 4096, or fewer where the other settings cannot take so many"
    )
    value_bound: int = setting(4, "largest size of a value in an update; a power of two")
    norm_bound: int | Literal["auto"] = setting("auto", "largest norm of an update; a power of two, or auto")
    aggregation: AggregationConfig = setting(AggregationConfig, "")
    server_optimizer: ServerOptimizerConfig = setting(ServerOptimizerConfig, "")
    scoring: ScoringConfig = setting(ScoringConfig, "")
    payout: PayoutConfig = setting(PayoutConfig, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """The node on this device."""

    local_dp: bool = setting(False, "clip and noise every update on the device, before it is sealed: docs/privacy.md")
    clip_norm: float | Literal["auto"] = setting(
        "auto", "local_dp: largest norm of an update, or auto, by the training"
    )
    noise: Literal["weak"] = setting(
        "weak", "local_dp: weak (0.001 of the clip norm: no guarantee), without target_epsilon"
    )
    target_epsilon: float | None = setting(None, "local_dp: budget of the whole run for one node; null: noise decides")
    delta: float = setting(1e-5, "local_dp: chance that the budget does not hold, and at which epsilon is told")
    accept_noise: bool = setting(False, "local_dp: deploy although the noise is more than 30 times the signal")
    privacy_folder: Path | None = setting(
        None, "folder of what was spent on each dataset; null: flb/privacy in the user's state folder"
    )
    keystore: Path | None = setting(None, "the node's encrypted key; make one with flb account new")
    password_file: Path | None = setting(None, "file with its password; or FLB_PASSWORD_FILE in the environment")
    workdir: Path = setting(Path("flb-node"), "folder for adapters, sealed updates and receipts")
    threads: int | None = setting(None, "threads for training; null divides the cores among the nodes here")
    processes: int = setting(
        1, "processes that train together: one a GPU, or with threads each on a CPU; divides training.batch_size"
    )
    keep_steps: int | None = setting(
        2, "adapters and sealed updates of how many past steps stay on disk; null keeps all"
    )
    nodes_on_this_machine: int = setting(1, "how many nodes share this machine's cores")
    node: str | None = setting(None, "address of the node after its key was rotated; null: that of the key")
    payee: str | None = setting(None, "address that is paid for this node; null: the node's own")
    invite: str | None = setting(None, "the line of flb chain invite, where the run admits by invitation")
    relay: Literal["auto", "always", "never"] = setting(
        "auto", "who pays for joining: auto (this node if it has coins, else the aggregator), always or never"
    )
    rank: int | None = setting(None, "rank that this node trains at, one of the run's lora.ranks; null: lora.r")
    held_out: float | Path | None = setting(
        None, "examples that are never trained: a share of the dataset, from above 0 to below 1, or a file; null: none"
    )
    shared_held_out: Path | None = setting(None, "the operator's file of held-out examples, the same for all nodes")
    eval_examples: int = setting(64, "most examples of each that an adapter is measured on, while the node waits")
    lm_eval_tasks: tuple[str, ...] | None = setting(None, "tasks of lm-eval to measure each adapter on; null: none")
    report_to: tuple[str, ...] | None = setting(
        None, "where losses go as well: tensorboard, mlflow, wandb or what else transformers reports to; null: nowhere"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyConfig:
    """Privacy besides client.local_dp: by a trusted aggregator (needs run.aggregation.weights: equal), or of examples."""

    central: Literal["none", "fixed", "adaptive"] = setting(
        "none", "the aggregator clips and adds noise: none, fixed (one clip norm) or adaptive (it follows a quantile)"
    )
    clip_norm: float | Literal["auto"] = setting("auto", "largest norm of an update (adaptive: at first), or auto")
    target_epsilon: float | None = setting(None, "budget of the whole run for one node; null: noise_multiplier decides")
    noise_multiplier: float | None = setting(
        None, "noise over clip norm; null: by the budget, and without one 0.001, which is no guarantee"
    )
    delta: float = setting(1e-5, "chance that the budget does not hold, and at which epsilon is told")
    denominator: int | Literal["auto"] = setting(
        "auto", "what the sum is divided by, whoever comes; auto: num_clients if set, else run.min_nodes"
    )
    quantile: float = setting(0.5, "adaptive: share of the updates that are to stay unclipped")
    rate: float = setting(0.2, "adaptive: how fast the clip norm moves")
    bits_noise: float | None = setting(
        None, "adaptive: noise on the count of unclipped updates; null: 5 % of the budget"
    )
    accept_noise: bool = setting(False, "deploy although the noise is more than 30 times the signal")
    example: bool = setting(
        False,
        "noise on gradients clipped one by one (DP-SGD): client.clip_norm (auto is 1), target_epsilon and delta hold",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """What the aggregator pays for nodes without coins."""

    daily_gas: int = setting(20_000_000, "gas a day for joins, and as much again for what members send; 0 relays none")
    joins_per_prefix_per_day: int = setting(
        8, "with open membership: joins a day from one network (IPv4 /24, IPv6 /56), since addresses of nodes are free"
    )
    batch_seconds: float = setting(1.0, "how long messages are collected for one transaction")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """The aggregator."""

    listen: str = setting("127.0.0.1:50051", "address and port to listen on; with TLS any address of this machine")
    tls: bool = setting(True, "false serves plaintext, on loopback only")
    advertise: str | None = setting(None, "HOST:PORT under which nodes reach it; null: as listen")
    keystore: Path | None = setting(None, "the aggregator's encrypted key")
    password_file: Path | None = setting(None, "file with its password; or FLB_PASSWORD_FILE in the environment")
    workdir: Path = setting(Path("flb-aggregator"), "folder for journal, blobs and published adapters")
    keep_updates: int | None = setting(
        None, "updates of how many sealed rounds stay on disk; null keeps all, which flb verify needs"
    )
    relay: RelayConfig = setting(RelayConfig, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainConfig:
    """The chain and the run on it."""

    rpc: str | tuple[str, ...] = setting(
        "http://127.0.0.1:8545", "JSON-RPC endpoint, or a list of them: the next is asked when one is dead or behind"
    )
    run: str | None = setting(None, "address of the run's contract; flb chain deploy prints it")
    factory: str | None = setting(None, "address of a factory to use; null deploys one")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole of config.yaml."""

    model: ModelConfig = setting(ModelConfig, "")
    dataset_name: Path | None = setting(
        None, "this node's data: a .jsonl, .json, .csv or .parquet file, a folder of them, or owner/name on the Hub"
    )
    dataset: DatasetConfig = setting(DatasetConfig, "")
    num_clients: int | None = setting(None, "for flb simulate: how many nodes it makes, all in one process")
    partition: PartitionConfig = setting(PartitionConfig, "")
    chain_record: bool = setting(True, "for flb simulate, which needs false; the daemons always use the chain")
    lora: LoraConfig = setting(LoraConfig, "")
    training: TrainingConfig = setting(TrainingConfig, "")
    run: RunConfig = setting(RunConfig, "")
    privacy: PrivacyConfig = setting(PrivacyConfig, "")
    client: ClientConfig = setting(ClientConfig, "")
    server: ServerConfig = setting(ServerConfig, "")
    chain: ChainConfig = setting(ChainConfig, "")


POSITIVE = (
    "num_clients", "lora.r", "lora.alpha", "training.local_steps", "training.batch_size", "training.max_length",
    "run.steps", "run.round_seconds", "run.min_nodes", "run.weight_cap", "run.max_cohort", "run.value_bound",
    "client.threads", "client.processes", "client.nodes_on_this_machine", "client.keep_steps", "client.rank", "client.eval_examples",
    "privacy.denominator", "server.keep_updates",
)  # fmt: skip
"""Numbers that must be at least 1."""

AT_LEAST_ZERO = (
    "partition.seed", "training.seed", "training.local_epochs", "training.warmup_steps", "training.fedprox_mu", "run.confirmations", "run.grace_seconds", "run.min_round_seconds", "run.payout.per_round",
    "run.payout.delay_seconds", "server.relay.daily_gas",
    "server.relay.joins_per_prefix_per_day", "server.relay.batch_seconds", "lora.residual_rank", "lora.max_rank",
    "run.aggregation.byzantine", "run.aggregation.neighbours", "run.aggregation.selected",
    "run.aggregation.iterations", "run.aggregation.radius", "run.aggregation.bucket",
)  # fmt: skip
"""Numbers that must not be negative."""

AT_MOST = {
    "lora.r": 2**16, "lora.alpha": 2**20, "training.learning_rate": 1e3, "training.fedprox_mu": 1e6,
    "training.dpo_beta": 1e3, "run.server_optimizer.learning_rate": 1e3,
}  # fmt: skip
"""What no training comes near to; far beyond it float32 overflows, and libraries end in an error of their own. A node
holds run specs against it too (`flb_node.bounds`)."""

AMOUNTS = ("run.payout.per_round",)
"""Amounts of a token, below 2^256; every other whole number is below 2^32."""


def require(value: Any, key: str, why: str) -> Any:
    """A setting that this command cannot do without. Raises ConfigError."""
    if value is None:
        raise ConfigError(f"{key} is not set", why)
    return value


def refuse_off_chain(config: Config) -> None:
    """The daemons always use the chain. Raises ConfigError for `chain_record: false` and for `num_clients`."""
    if config.num_clients is not None:
        raise ConfigError("num_clients is for flb simulate", "remove it; each node of a run is a process of its own")
    if not config.chain_record:
        raise ConfigError("chain_record: false is for flb simulate", "remove it; a daemon always records on the chain")


def keys(kind: Any) -> dict[str, "Field[Any]"]:
    """The fields of one section by name."""
    return {item.name: item for item in fields(kind)}
