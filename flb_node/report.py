# SPDX-License-Identifier: Apache-2.0
"""Losses to TensorBoard, MLflow, Weights & Biases: through transformers' own callbacks, as one run over all rounds.

A round has a trainer of its own, and each would begin a new run at step 0. So the callbacks are made here, once, and
are told of every step of the whole run by its own number. Nothing but figures, settings and the base model's
configuration is given to them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import integration_utils

from flb.errors import ConfigError, MissingTool

PACKAGES = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""What to install, where it is not called like the integration."""


@dataclass(slots=True)
class Report:
    """Open integrations. `begin` once, then `log`, then `end`."""

    callbacks: Sequence[Any]
    arguments: TrainingArguments
    state: TrainerState
    control: TrainerControl

    def begin(self, model: Any, steps: int) -> None:
        """Start the run; `steps` is how many optimizer steps it may have."""
        self.state.max_steps = steps
        for callback in self.callbacks:
            callback.on_train_begin(self.arguments, self.state, self.control, model=model)

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Figures by name, which hold after so many optimizer steps of the run."""
        self.state.global_step = step
        for callback in self.callbacks:
            callback.on_log(self.arguments, self.state, self.control, logs=dict(figures))

    def end(self) -> None:
        """Write what is not yet written."""
        for callback in self.callbacks:
            callback.on_train_end(self.arguments, self.state, self.control)


def open_report(names: Sequence[str], folder: Path, run: str) -> Report:
    """Integrations by transformers' names, for files in `folder` and a run called `run`.

    After a restart TensorBoard and Weights & Biases go on in the same run. Raises ConfigError for a name that
    transformers does not know, MissingTool for a package that is not installed.
    """
    known = integration_utils.INTEGRATION_TO_CALLBACK
    os.environ.setdefault("WANDB_RUN_ID", run)
    os.environ.setdefault("WANDB_RESUME", "allow")
    callbacks = []
    for name in names:
        if name not in known:
            raise ConfigError(f"client.report_to names {name!r}", f"choose from {', '.join(sorted(known))}")
        package = PACKAGES.get(name, name)
        missing = MissingTool(
            f"client.report_to names {name}, and the package {package} is not installed",
            f"install it with pip install {package}, or remove {name} from client.report_to",
        )
        # asked first: what a constructor that raised leaves behind may print a traceback when it is collected
        if not getattr(integration_utils, f"is_{name}_available", lambda: True)():
            raise missing
        try:
            callback = known[name]()
        except (RuntimeError, ImportError) as error:
            raise missing from error
        if getattr(callback, "logging_dir", "") is None:
            callback.logging_dir = str(folder / name)
        callbacks.append(callback)
    arguments = TrainingArguments(
        output_dir=str(folder), run_name=run, use_cpu=True, report_to="none", disable_tqdm=True
    )
    state = TrainerState(is_world_process_zero=True, is_local_process_zero=True)
    return Report(callbacks, arguments, state, TrainerControl())
