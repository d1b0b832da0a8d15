# SPDX-License-Identifier: Apache-2.0
"""The numbers of a server optimizer, the same in every step of a run."""

from typing import NamedTuple


class Constants(NamedTuple):
    """Each is the float64 nearest to the spec's decimal; `tau` is the spec's or, with `tau: auto`, that of the first mean
    (`flb.server_optimizer.tau`). Where a formula has 1 - β, that is one subtraction in float64."""

    learning_rate: float
    momentum: float = 0.9
    """β of FedAvgM and Nesterov, β₁ of Adam and Yogi."""
    beta2: float = 0.99
    tau: float = 0.0
    """The adaptivity: below about this size a second moment no longer divides. 0 where the optimizer has none."""
