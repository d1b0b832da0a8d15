# SPDX-License-Identifier: Apache-2.0
"""How the mean update becomes a step of the adapter (FedOpt, Reddi et al., ICLR 2021, arXiv 2003.00295).

D is the mean update, trained minus shared adapter, so a step is added. Every formula works element by element in
float64, one rounding for each operation, in the order in which its file writes it: no fused kernel, no pow, no bias
correction. So a step has no order and no threads (docs/arithmetic.md).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flb.capabilities import OptimizerCapabilities
from flb.delta import Float64
from flb.server_optimizer import adagrad, adam, momentum, nesterov, sgd, yogi
from flb.server_optimizer.constants import Constants

Step = Callable[[Float64, Float64, Constants], Float64]
"""`step(mean, moments, constants)`: what n elements of the adapter move by. `moments` are those before the step, of shape
(n, moments an element); after the call they are those after it. The mean is left as it is, and may be returned."""

PART = 8192
"""Elements of one call of a step: its intermediate arrays stay in the cache, and are small enough for the allocator to
hand out again. With arrays of 512 KiB the pages are made anew each time, and Adam takes three times as long."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """One server optimizer: what it keeps, and its step. Where it is `adaptive`, its last moment is v, which starts at τ²;
    every other moment starts at 0."""

    capabilities: OptimizerCapabilities
    step: Step

    @property
    def adaptive(self) -> bool:
        """Whether it divides by the root of v."""
        return self.capabilities.adaptive

    @property
    def moments(self) -> int:
        """Moments of an element."""
        return self.capabilities.moments

    def start(self, moments: Float64, tau: float) -> None:
        """Write the moments before the first step to an array of shape (n, moments an element)."""
        moments[:] = 0.0
        if self.adaptive:
            moments[:, -1] = tau * tau


OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(sgd.CAPABILITIES, sgd.step),
    "momentum": Optimizer(momentum.CAPABILITIES, momentum.step),
    "nesterov": Optimizer(nesterov.CAPABILITIES, nesterov.step),
    "adagrad": Optimizer(adagrad.CAPABILITIES, adagrad.step),
    "adam": Optimizer(adam.CAPABILITIES, adam.step),
    "yogi": Optimizer(yogi.CAPABILITIES, yogi.step),
}
"""Every server optimizer that a run spec may name."""


def apply(optimizer: Optimizer, mean: Float64, moments: Float64, constants: Constants) -> Float64:
    """What n elements of the adapter move by, for their mean update or whatever else is to be smoothed; `moments`, of shape
    (n, moments an element), become those after the step. Elements do not meet, so any cut into blocks gives the same."""
    if optimizer.moments == 0:
        return optimizer.step(mean, moments, constants)
    moved = np.empty_like(mean)
    for start in range(0, mean.size, PART):
        part = slice(start, start + PART)
        moved[part] = optimizer.step(mean[part], moments[part], constants)
    return moved
