# SPDX-License-Identifier: Apache-2.0
"""Server optimizers as tests use them: a series of steps, and the formulas again, one element and one float at a time."""

import math
from collections.abc import Sequence

import numpy as np

from flb.server_optimizer import OPTIMIZERS
from flb.server_optimizer.constants import Constants

NAMES = tuple(OPTIMIZERS)
ADAPTIVE = tuple(name for name, optimizer in OPTIMIZERS.items() if optimizer.adaptive)


def started(name: str, count: int, tau: float = 0.0) -> np.ndarray:
    """The moments of `count` elements before the first step."""
    moments = np.full((count, OPTIMIZERS[name].moments), np.nan)
    OPTIMIZERS[name].start(moments, tau)
    return moments


def steps(name: str, means: Sequence[np.ndarray], constants: Constants) -> tuple[list[np.ndarray], np.ndarray]:
    """The steps for some means in a row, and the moments after the last one."""
    moments = started(name, means[0].size, constants.tau)
    made = [OPTIMIZERS[name].step(mean.copy(), moments, constants) for mean in means]
    return made, moments


def slow_steps(name: str, means: Sequence[float], c: Constants) -> list[float]:
    """The same for one element, in the floats of Python: its operators round once each, as IEEE 754 says."""
    m, v, made = 0.0, c.tau * c.tau, []
    for d in means:
        match name:
            case "sgd":
                made.append(d * c.learning_rate)
            case "momentum":
                m = c.momentum * m + d
                made.append(c.learning_rate * m)
            case "nesterov":  # as the paper has it, for the gradient
                g = -d
                m = c.momentum * m + g
                made.append(-(c.learning_rate * (g + c.momentum * m)))
            case "adagrad":
                v = v + d * d
                made.append((c.learning_rate * d) / (math.sqrt(v) + c.tau))
            case "adam":
                m = c.momentum * m + (1 - c.momentum) * d
                v = c.beta2 * v + (1 - c.beta2) * (d * d)
                made.append((c.learning_rate * m) / (math.sqrt(v) + c.tau))
            case "yogi":
                m = c.momentum * m + (1 - c.momentum) * d
                sign = (v > d * d) - (v < d * d)
                v = v - (1 - c.beta2) * (d * d) * sign
                made.append((c.learning_rate * m) / (math.sqrt(v) + c.tau))
    return made
