# SPDX-License-Identifier: Apache-2.0
"""Not a number: one NaN would make every coordinate of a mean NaN. Admission refuses it."""

from collections.abc import Mapping

import numpy as np

from flb.delta import Float32


def attack(own: Mapping[str, Float32]) -> dict[str, Float32]:
    """The own update with NaN in the first element of each tensor."""
    sent = {}
    for name, value in own.items():
        sent[name] = value.copy()
        sent[name].flat[0] = np.float32(np.nan)
    return sent
