# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the trainer: numpy in milliseconds, the same bytes for the same seed.

What is tested here is everything around the training. The real trainer is killed in tests/e2e/test_kill.py.
"""

import json
import os
import threading
import time
from typing import Any

import numpy as np

from flb.config import Config
from flb.spec import RunSpec
from flb_node.pipeline import Tensors, Train

TRAININGS = "trainings.jsonl"
SECONDS = "FLB_CHAOS_TRAINING_SECONDS"
"""Environment variable: how long a training pretends to last."""


def make_trainer(config: Config, spec: RunSpec, examples: Any, status: Any, stop: threading.Event, *_: Any) -> Train:
    """As `flb_node.app.make_trainer`; each training leaves a line with its seed and with what was sealed before it."""
    folder = config.client.workdir
    pause = float(os.environ.get(SECONDS, "0"))

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: int) -> Tensors:
        sealed = sorted(path.name for path in folder.glob("step-*.json"))
        with (folder / TRAININGS).open("a") as file:
            file.write(json.dumps({"seed": seed, "sealed": sealed}) + "\n")
        status("training", local_step=0, of=spec.training.local_steps)
        time.sleep(pause)
        generator = np.random.default_rng(seed)
        return {
            name: before + generator.normal(0.0, 1e-2, before.shape).astype(np.float32) if name in names else before
            for name, before in sorted(adapter.items())
        }

    return train
