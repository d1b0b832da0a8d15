# SPDX-License-Identifier: Apache-2.0
"""The base model of a simulated run: loaded once, trained by each node in turn, measured after each round."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from flb.config import Config, require
from flb.spec import RunSpec
from flb.types import Step
from flb_node import packing, pipeline, remote_code, tokens
from flb_node.evaluation import Figures, HeldOut
from flb_node.examples import Example
from flb_node.pipeline import Tensors, Train
from flb_node.threads import configure_threads

if TYPE_CHECKING:  # torch reads the thread settings when it is imported
    from flb_node.trainer import LocalTrainer


@dataclass(frozen=True, slots=True)
class Model:
    """The loaded model. `measure` gives the figures of an adapter on the held-out examples; empty where there are none."""

    local: "LocalTrainer"
    spec: RunSpec
    measure: Callable[[Tensors], Figures]

    def train_on(self, examples: tuple[Example, ...], folder: Path) -> Train:
        """A node's training, with tokens of its own; `folder` is where a kept optimizer state stands.

        Raises DatasetError at once for examples that this run cannot use.
        """
        local, spec = replace(self.local), self.spec  # the copy shares the model, and keeps this node's tokens
        local.prepare(examples, spec.training)

        def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
            trained = local.train(
                examples, adapter, names, spec.training, seed, lambda done, of, loss: None, step=step - 1,
                steps=spec.rounds.steps, kept=folder / "optimizer",
            )  # fmt: skip
            return trained.adapter

        return train


def load(config: Config, spec: RunSpec, held_out: HeldOut) -> Model:
    """Load the base with a LoRA adapter, as `flb-node` does. Raises what `flb_node.trainer.load` raises.

    `model.dtype: auto` is float32 here: the faster type would have to be measured, and two runs might differ.
    """
    packing.check(config.training.packing, config.client.processes, spec.training.objective)
    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    tokens.check_context(path, spec.training.max_length)
    trusted = config.model.trust_remote_code
    runs_code = trusted is not None and remote_code.allowed(path, trusted.name, trusted.revision)
    if "torch" not in sys.modules:
        configure_threads(config.client.threads, config.client.nodes_on_this_machine)
    from flb_node import measurement, trainer

    dtype = "float32" if config.model.dtype == "auto" else config.model.dtype
    local = trainer.load(
        path, spec.lora, spec.tensors, device_map=config.model.device_map, dtype=dtype,
        seed=spec.training.seed, bits=config.model.quantization, checkpointing=config.training.gradient_checkpointing,
        runs_code=runs_code, chat_template=config.dataset.chat_template,
        packing=config.training.packing, rank=pipeline.node_rank(spec.lora, config.client.rank),
    )  # fmt: skip
    measured = measurement.measure_with(local.model, local.tokenizer, local.weights, held_out, spec.training.max_length)

    def measure(adapter: Tensors) -> Figures:
        found: Figures = {}
        for figures in measured(adapter) if measured is not None else ():
            found = figures or found
        return found

    return Model(local, spec, measure)
