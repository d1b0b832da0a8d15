# SPDX-License-Identifier: Apache-2.0
"""Sign flip: the own update, turned around. The simplest attack, and visible to every rule that compares directions.

Source: Allen-Zhu et al., "Byzantine-Resilient Non-Convex Stochastic Gradient Descent", ICLR 2021 (arXiv 2012.14368).
"""

from collections.abc import Mapping

import numpy as np

from flb.delta import Float32


def attack(own: Mapping[str, Float32], factor: float) -> dict[str, Float32]:
    """-`factor` times each value, one float32 product."""
    return {name: value * np.float32(-factor) for name, value in own.items()}
