# SPDX-License-Identifier: Apache-2.0
"""What is done at each optimizer step: set the learning rate, note loss and time, and stop what can't succeed."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from transformers import TrainerCallback

from flb.errors import TrainingFailed

OnStep = Callable[[int, int, float], None]
"""(optimizer step, counted from 1; of how many; its loss). An exception raised in it ends the training."""


class StepWatch(TrainerCallback):  # type: ignore[misc]
    """transformers reports progress to callbacks of this class only.

    `rate` gives the learning rate of an optimizer step, counted from 0. Raises TrainingFailed for a loss that is no
    number, and for an adapter that the first optimizer step did not move.
    """

    def __init__(
        self, total: int, on_step: OnStep, rate: Callable[[int], float], weights: Mapping[str, torch.nn.Parameter]
    ) -> None:
        self.total, self.on_step, self.rate, self.weights = total, on_step, rate, weights
        self.before = {name: weight.detach().clone() for name, weight in weights.items() if weight.requires_grad}
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.start = self.began = 0.0

    def on_step_begin(self, _arguments: Any, state: Any, _control: Any, optimizer: Any, **_: Any) -> None:
        """Set the learning rate: the trainer's own schedule knows this round alone."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(state.global_step)
        self.start = time.perf_counter()
        self.began = self.began or self.start

    def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
        """Note the time, and look at the adapter once."""
        self.seconds.append(time.perf_counter() - self.start)
        if state.global_step == 1 and self.rate(0) > 0:
            if all(torch.equal(self.weights[name], value) for name, value in self.before.items()):
                raise TrainingFailed(
                    "the first optimizer step did not move the adapter: its gradient is zero",
                    "check that the data has answers to learn and that lora.target_modules names modules in use",
                )
            self.before.clear()

    def on_log(self, _arguments: Any, _state: Any, _control: Any, logs: dict[str, float], **_: Any) -> None:
        """Note the loss."""
        if "loss" in logs:
            loss = float(logs["loss"])
            self.losses.append(loss)
            check_finite(loss, len(self.losses))
            self.on_step(len(self.losses), self.total, loss)


def check_finite(value: float, step: int, what: str = "loss") -> None:
    """Raise TrainingFailed for a loss, or a largest size in the adapter, that is NaN or infinite."""
    if not math.isfinite(value):
        raise TrainingFailed(
            f"the {what} of optimizer step {step} is {value}",
            "nothing is sent for this round; if it comes again, ask the operator for a lower training.learning_rate, "
            "or set model.dtype to float32",
        )
