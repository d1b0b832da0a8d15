# SPDX-License-Identifier: Apache-2.0
"""What Adagrad, Adam and Yogi have in common: they divide by the root of a second moment, and average D."""

import numpy as np

from flb.delta import Float64
from flb.server_optimizer.constants import Constants


def divided(numerator: Float64, v: Float64, constants: Constants) -> Float64:
    """(η·numerator) / (√v + τ): product, root, sum, quotient, each rounded once. √ is correctly rounded in IEEE 754."""
    root = np.sqrt(v)
    np.add(root, constants.tau, out=root)
    moved = np.multiply(numerator, constants.learning_rate)
    np.divide(moved, root, out=moved)
    return moved


def average(m: Float64, mean: Float64, constants: Constants) -> None:
    """m ← β₁·m + (1 - β₁)·D, in place."""
    np.multiply(m, constants.momentum, out=m)
    np.add(m, np.multiply(mean, 1.0 - constants.momentum), out=m)
