# SPDX-License-Identifier: Apache-2.0
"""Model replacement: the own update many times over, so that the mean lands on the attacker's model.

Source: Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020 (arXiv 1807.00459). With n nodes of equal
weight and `factor` n the new adapter is the attacker's; `ring.norm_bound` is what stops it.
"""

from collections.abc import Mapping

import numpy as np

from flb.delta import Float32


def attack(own: Mapping[str, Float32], factor: float) -> dict[str, Float32]:
    """`factor` times each value, one float32 product."""
    return {name: value * np.float32(factor) for name, value in own.items()}
