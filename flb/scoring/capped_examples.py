# SPDX-License-Identifier: Apache-2.0
"""The default rule: an admitted update scores its weight, which is its examples as far as the dataset and the cap go.

A node's total is so its capped examples times its admitted rounds: what its data gave to the mean, and no more.
"""

from collections.abc import Sequence

from flb.spec import RunSpec
from flb.types import Address, Admitted


def scores(admitted: Sequence[Admitted], spec: RunSpec) -> dict[Address, int]:
    """Weight of each admitted update, between 0 and `ring.weight_cap`, by node."""
    return {item.node: item.weight for item in admitted}
