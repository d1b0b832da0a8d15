# SPDX-License-Identifier: Apache-2.0
"""A little is enough: all attackers send the honest mean, moved by some deviations in every coordinate.

Source: Baruch, Baruch and Goldberg, NeurIPS 2019 (arXiv 1902.06156). Their largest z that stays hidden is 0 for small
cohorts (n = 10 with 2 attackers), so a fixed z of 1 to 1.5 is usual. A negative z moves the other way.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from flb.attacks.moments import deviation, mean
from flb.delta import Float32


def attack(honest: Sequence[Mapping[str, Float32]], z: float) -> dict[str, Float32]:
    """mean + z · deviation of at least one honest update, coordinate by coordinate."""
    sent = {}
    for name in honest[0]:
        values = [update[name] for update in honest]
        sent[name] = (mean(values) + np.float64(z) * deviation(values)).astype(np.float32)
    return sent
