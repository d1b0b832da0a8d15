# SPDX-License-Identifier: Apache-2.0
"""Inner product manipulation: all attackers send the honest mean turned around, small enough to pass for honest.

Source: Xie, Koyejo and Gupta, "Fall of Empires", UAI 2019 (arXiv 1903.03936). Where others write (1 - τ) · mean, epsilon
is τ - 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from flb.attacks.moments import mean
from flb.delta import Float32


def attack(honest: Sequence[Mapping[str, Float32]], epsilon: float) -> dict[str, Float32]:
    """-`epsilon` · mean of at least one honest update."""
    return {
        name: (mean([update[name] for update in honest]) * np.float64(-epsilon)).astype(np.float32)
        for name in honest[0]
    }
