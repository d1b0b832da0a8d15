# SPDX-License-Identifier: Apache-2.0
"""The learning rate over the whole run: a function of the step and of the place in it, so that it needs no state.

A node that was not drawn, was restarted or came late trains at the same rate as the others.
"""

import math

from flb.spec import TrainingSpec


def learning_rate(training: TrainingSpec, steps: int, step: int, local: int, planned: int) -> float:
    """The rate of optimizer step `local` (from 0) of `planned` in step `step` (from 0) of the run's `steps`.

    The run counts as steps · local_steps optimizer steps; a node that plans fewer in a step walks through them faster.
    It rises linearly over `warmup_steps` to the peak, which the first step after them has, and `linear` or `cosine`
    then let it fall, to reach 0 where the run is over (as transformers' schedules of these names do).
    """
    place = step * training.local_steps + local * training.local_steps / planned
    warmup = training.warmup_steps
    if place < warmup:
        return training.learning_rate * (place + 1) / (warmup + 1)  # never 0: the first step has to move the adapter
    if training.lr_schedule == "constant":
        return training.learning_rate
    done = min((place - warmup) / max(1, steps * training.local_steps - warmup), 1.0)
    share = 1.0 - done if training.lr_schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return training.learning_rate * share


def planned_steps(training: TrainingSpec, examples: int) -> int:
    """Optimizer steps of one training with so many usable examples; the last batch of a pass may be smaller."""
    if not training.local_epochs:
        return training.local_steps
    return min(training.local_steps, training.local_epochs * -(-examples // training.batch_size))
