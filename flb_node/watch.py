# SPDX-License-Identifier: Apache-2.0
"""What is seen of local training: status, progress, reports, and the measuring of each round's adapter."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from flb.config import ClientConfig
from flb.spec import RunSpec
from flb.types import Address
from flb_node import measurement, report
from flb_node.adapter_weights import Weights
from flb_node.evaluation import Evaluation
from flb_node.progress import Progress
from flb_node.report import Report
from flb_node.status import StatusFile


@dataclass(slots=True)
class Watch:
    """One run's training on this node. Call `loaded` once, `begin` before each round, `step` after each of its steps."""

    client: ClientConfig
    spec: RunSpec
    status: StatusFile
    evaluation: Evaluation | None
    log: Callable[[str], None]
    progress: Progress
    report: Report | None
    judge: measurement.Judge | None

    def loaded(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, weights: Weights, tokens_a_row: float = 0.0
    ) -> None:
        """The model is there, and trains on rows of so many tokens; 0 where that is not known. Raises DatasetError for
        held-out examples of which none fits."""
        length = self.spec.training.max_length
        self.progress.tokens_a_step = tokens_a_row * self.spec.training.batch_size
        if self.report is not None:
            self.report.begin(model, self.spec.rounds.steps * self.spec.training.local_steps)
        if self.evaluation is not None:
            self.evaluation.measure = measurement.measure_with(
                model, tokenizer, weights, self.evaluation.examples, length, self.judge
            )
            if self.report is not None:
                self.evaluation.report, self.evaluation.ended = self.report.log, self.report.end

    def begin(self) -> None:
        """A round starts to train."""
        self.status("training", round=self.status.round, local_step=0, of=self.spec.training.local_steps)
        self.progress.begin(self.status.step, self.spec.rounds.steps)

    def step(self, done: int, of: int, loss: float) -> None:
        """Optimizer step `done` of the round, counted from 1, is done."""
        self.status("training", round=self.status.round, local_step=done, of=of, loss=round(loss, 4))
        self.progress.step(done, of, loss)
        if self.report is not None:
            before = (self.status.step - 1) * self.spec.training.local_steps
            self.report.log({"loss": loss}, before + done)


def open_watch(
    client: ClientConfig,
    spec: RunSpec,
    status: StatusFile,
    evaluation: Evaluation | None,
    log: Callable[[str], None],
    run: Address,
) -> Watch:
    """Before the model is loaded; `run` is the contract, which names the run in reports. Raises ConfigError and MissingTool for what the
    settings name and is not there."""
    judge = measurement.lm_eval_judge(client.lm_eval_tasks, client.eval_examples)
    names = client.report_to
    opened = report.open_report(names, client.workdir / "reports", f"flb-{run.hex()[:12]}") if names else None
    progress = Progress(sys.stderr, log, time.monotonic, 0.0)
    return Watch(client, spec, status, evaluation, log, progress, opened, judge)
