# SPDX-License-Identifier: Apache-2.0
"""Gauge: factors (gB, A/g) have the same product BA as (B, A), and an update as large as the attacker likes.

An attack of LoRA alone, on what averages A and B each on its own: the node's model is as good as an honest one's, yet
mean(B) · mean(A) is ruined by g. What compares or averages products does not see it at all.
"""

from collections.abc import Mapping

import numpy as np

from flb.delta import Float32
from flb.errors import Refused

A, B = ".lora_A.", ".lora_B."


def attack(base: Mapping[str, Float32], own: Mapping[str, Float32], factor: float) -> dict[str, Float32]:
    """The update from `base` to (`factor` · B, A / `factor`), where (B, A) is `base` after the `own` update.

    `factor` is a number above 0; a power of two keeps every bit of the product. Raises Refused for another one, and for a
    step that sends one factor alone: there the product fixes it.
    """
    if not 0 < factor < float("inf"):
        raise Refused(f"the gauge attack has the factor {factor}", "give a number above 0")
    sent = {}
    for name, value in own.items():
        if (name.replace(A, B) if A in name else name.replace(B, A)) not in own:
            raise Refused("the gauge attack needs a step that sends both factors", "set lora.mode: factors")
        by = np.float32(1 / factor) if A in name else np.float32(factor)
        sent[name] = (base[name] + value) * by - base[name]
    return sent
