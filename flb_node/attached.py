# SPDX-License-Identifier: Apache-2.0
"""A node around somebody's own trainer: their script, data and loss; the run's rounds.

    trainer = SFTTrainer(model=..., peft_config=LoraConfig(...), ...)
    flb_node.attach(trainer, run="config.yaml")
    trainer.train()

`train()` then lasts as long as the run. The node's daemon works in a thread of its own; between two rounds the trainer
waits for it inside a callback, so there is one `train()` over all rounds: its global step, schedule and reports go on.
"""

import atexit
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import rfc8785
from transformers import TrainerCallback

from flb import base_model
from flb.config import Config
from flb.delta import Float32
from flb.errors import ConfigError, DatasetError, Refused
from flb.lora import parts, shape
from flb.spec import LoraSpec, RunSpec, TrainingSpec
from flb.store import lock_folder
from flb.types import LoraMode
from flb_node import adapter_weights, app, attach_settings, evaluation, pipeline
from flb_node.evaluation import Evaluation
from flb_node.handover import Ended, Handover, Work
from flb_node.local_privacy import LocalPrivacy
from flb_node.pipeline import Train
from flb_node.status import StatusFile
from flb_node.watch import Watch, open_watch

IGNORED = ("objective", "local_epochs", "lr_schedule", "warmup_steps", "fedprox_mu", "optimizer_state")
"""What a run may ask of `flb_node.trainer` alone."""


def attach(trainer: Any, run: str = "config.yaml", **settings: Any) -> None:
    """Join a run and make `trainer.train()` train its rounds; returns once the run's spec is known and fits.

    `run` is a node's config file, or the address of the run's contract; `settings` are keys of `client` and `chain`,
    and `model_path`, by their own names. The run decides how many steps are trained and with which LoRA; everything
    else stays the trainer's. When `train()` returns, the model holds the run's last adapter.

    Raises ConfigError; Refused for a model without LoRA or with another scale, or a trainer of several processes;
    WrongBaseModel for other tensors than the run's, by name; and what ends a node.
    """
    lora = adapter_weights.lora_of(trainer.model)
    if trainer.args.world_size > 1 or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise Refused("attach works with one training process", "start the script without a launcher")
    config = attach_settings.read(run, settings)
    if isinstance(config.client.held_out, float):
        raise ConfigError(
            "client.held_out is a share, and the dataset is the trainer's", "name a file of held-out examples"
        )
    records = tuple(record_bytes(trainer.train_dataset))
    node = Node(config, lora, base_folder(config, trainer.model), records, trainer.model, trainer.processing_class)
    node.start()
    spec = node.spec()
    if spec is not None:
        announce(trainer.args, spec)
    trainer.args.max_steps = spec.rounds.steps * spec.training.local_steps if spec else 1
    trainer.add_callback(Rounds(node))


def announce(arguments: Any, spec: RunSpec) -> None:
    """Say where the trainer's own settings are other than the run's: they hold, and others train otherwise.

    `max_length` is said and not refused: the records were cut when the trainer was made, and where they are cut is the
    node's own data. Of a trainer that has no such setting nothing is known.
    """
    for name, own, theirs, how in (
        ("learning_rate", arguments.learning_rate, spec.training.learning_rate, ""),
        ("batch size", arguments.train_batch_size * arguments.gradient_accumulation_steps, spec.training.batch_size, ""),
        (
            "max_length", getattr(arguments, "max_length", spec.training.max_length), spec.training.max_length,
            f"; make it with max_length={spec.training.max_length} to cut records where the others cut theirs",
        ),
    ):  # fmt: skip
        if own != theirs:
            app.log(f"the trainer's {name} is {own}, the run's {theirs}; the trainer's is used{how}")


def base_folder(config: Config, model: Any) -> Path | None:
    """The folder of the trainer's base model, as far as it is known: from the settings, or where it was loaded from."""
    if config.model.model_path is not None:
        return config.model.model_path
    loaded = Path(str(getattr(model.config, "_name_or_path", "")))
    return loaded if loaded.is_dir() else None


def record_bytes(dataset: Any) -> Iterable[bytes]:
    """Canonical bytes (RFC 8785) of each row of the trainer's dataset, for the commitment. Raises DatasetError."""
    if dataset is None or not hasattr(dataset, "__len__"):
        raise DatasetError("the trainer's dataset has no length, so it can't be committed to", "load it as a whole")
    for index in range(len(dataset)):
        row = dataset[index]
        try:
            yield rfc8785.dumps(
                {key: getattr(value, "tolist", lambda value=value: value)() for key, value in row.items()}
            )
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetError(
                f"row {index} of the trainer's dataset is not made of texts, numbers and lists",
                "keep to such columns",
            ) from error


@dataclass(slots=True)
class Node:
    """The daemon in its thread, and what the trainer's thread needs of it."""

    config: Config
    lora: adapter_weights.Lora
    base: Path | None
    records: tuple[bytes, ...]
    model: Any
    tokenizer: Any
    handover: Handover = field(default_factory=Handover)
    stop: threading.Event = field(default_factory=threading.Event)
    watch: Watch | None = None
    last: dict[str, Float32] | None = None
    """The run's last adapter, once it is over."""
    known: RunSpec | None = None

    def start(self) -> None:
        """Run the daemon until the run is over, this process ends, or `end` is called."""
        folder = self.config.client.workdir
        key = app.open_key(self.config)
        _, held_out = evaluation.read(self.config.client, ())
        lock = lock_folder(folder)
        wake = threading.Event()

        def serve() -> None:
            try:
                # the outbox's database belongs to the thread that opens it
                daemon = app.build(
                    self.config, app.run_address(self.config), key, lambda: self.records, folder, self.stop, wake,
                    held_out, self.fit, self.check,
                )  # fmt: skip
                try:
                    daemon.run()
                    if daemon.view.finished and daemon.spec is not None:
                        self.last = pipeline.load_adapter(daemon.spec, daemon.blobs, daemon.view.adapter)
                finally:
                    daemon.disconnect()
                    daemon.evaluation.close()
                self.handover.finish()
            except Ended:
                self.handover.finish()
            except BaseException as error:  # noqa: BLE001 - the trainer's thread raises it
                self.handover.finish(error)
            finally:
                lock.close()

        thread = threading.Thread(target=serve, daemon=True, name="flb-node")
        atexit.register(self.end)
        thread.start()

    def spec(self) -> RunSpec | None:
        """The run's spec, once it is known and fits; None if the run is over already."""
        return self.handover.until(lambda: self.known)

    def check(self, spec: RunSpec) -> None:
        """Compare the trainer with the run, before the node joins."""
        if self.base is None:
            app.log("the folder of the trainer's base model is not known, so its weights are not compared with the run")
        else:
            base_model.check(self.base, spec.base)
        rank = pipeline.node_rank(spec.lora, self.config.client.rank)
        adapter_weights.compare(self.lora, spec.lora, shape.at_rank(spec.tensors, rank))
        refuse_frozen(spec.lora)
        refuse_ignored(spec.training)
        refuse_private(spec)

    def fit(self, spec: RunSpec, status: StatusFile, measured: Evaluation, privacy: LocalPrivacy) -> Train:
        """The daemon's `make_trainer`: the model is there."""
        client = replace(self.config.client, report_to=None)  # the trainer reports for itself
        self.watch = open_watch(client, spec, status, measured, app.log, app.run_address(self.config))
        self.watch.loaded(self.model, self.tokenizer, self.lora.weights)
        self.known = spec
        self.handover.announce()
        return self.handover.train

    def end(self) -> None:
        """Let the daemon end."""
        self.stop.set()
        self.handover.abandon()


class Rounds(TrainerCallback):  # type: ignore[misc]
    """Swaps adapters between rounds. transformers calls callbacks of this class only."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.work: Work | None = None
        self.placed: dict[str, Float32] = {}
        self.done = 0
        self.loss: dict[str, float] = {}

    def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Keep the trainer's newest loss for the status."""
        if logs and "loss" in logs:
            self.loss = {"loss": round(float(logs["loss"]), 4)}

    def on_train_begin(self, _arguments: Any, _state: Any, _control: Any, optimizer: Any = None, **_: Any) -> None:
        """Wait for the first round."""
        self.begin(optimizer)

    def on_step_end(self, _arguments: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """After the last step of a round: give its adapter, and wait for the next round."""
        if self.work is not None:
            self.done += 1
            assert self.node.known is not None
            of = self.node.known.training.local_steps
            if self.node.watch is not None:
                status = self.node.watch.status
                status("training", round=status.round, local_step=self.done, of=of, **self.loss)
            if self.done < of:
                return
            self.node.handover.give(adapter_weights.moved(self.work.adapter, self.placed, self.node.lora.weights))
            self.begin(optimizer)
        if self.work is None:
            control.should_training_stop = True
        elif state.global_step >= state.max_steps:
            control.should_training_stop = False  # a round that a reorg undid was trained twice

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the run's last adapter in the model, all of it trainable again."""
        weights = self.node.lora.weights
        for weight in weights.values():
            weight.requires_grad_(True)
        if self.node.last is not None:
            rank = adapter_weights.rank_of(weights)
            last = parts.split(self.node.last, rank)
            adapter_weights.put(weights, parts.trained(last))
            if parts.thawed(last):
                app.log(f"the model holds the first {rank} ranks of the run's last adapter, which has more")
        elif self.work is not None:
            app.log("the trainer ended before the run did, so this node leaves its rounds")
        self.node.end()

    def begin(self, optimizer: Any) -> None:
        """The next round's adapter in place, with a fresh optimizer; `work` is None when the run is over."""
        self.work, self.done = self.node.handover.take(), 0
        if self.work is None:
            return
        weights = self.node.lora.weights
        adapter_weights.put(weights, self.work.adapter)
        self.placed = adapter_weights.read(weights)
        adapter_weights.let_train(weights, self.work.trainable)
        if optimizer is not None:
            getattr(optimizer, "optimizer", optimizer).state.clear()  # accelerate wraps it


def refuse_frozen(lora: LoraSpec) -> None:
    """Raise Refused for a run whose adapter holds more than is trained: somebody's own model has no place for the rest, so
    it would not be part of what they save."""
    if lora.mode == LoraMode.STACK or lora.residual_rank:
        raise Refused(
            "the run's adapter has a frozen part, which a trainer of your own does not hold",
            "take part with flb-node, or ask the operator for a run in another mode",
        )


def refuse_ignored(training: TrainingSpec) -> None:
    """Raise Refused for what a run asks of training that the user's own trainer does not do."""
    for item in fields(TrainingSpec):
        asked = getattr(training, item.name)
        if item.name in IGNORED and asked != item.default:
            raise Refused(
                f"the run asks for {item.name}: {asked}, which a trainer of your own does not do",
                "take part with flb-node, or ask the operator for a run without it",
            )


def refuse_private(spec: RunSpec) -> None:
    """Raise Refused for privacy of examples: somebody's own trainer adds no noise to its gradients."""
    if spec.privacy.mechanism == "example":
        raise Refused(
            "the run has privacy of examples, which a trainer of your own does not add", "take part with flb-node"
        )
