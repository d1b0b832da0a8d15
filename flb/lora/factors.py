# SPDX-License-Identifier: Apache-2.0
"""Mode `factors` (FedIT, Zhang et al., arXiv 2305.05644): A and B are averaged, each on its own.

Not exact: mean(B)·mean(A) is not mean(B·A). It is the usual method, and the default.
"""

from flb.capabilities import ModeCapabilities
from flb.types import Step, TensorSpec

CAPABILITIES = ModeCapabilities(linear=True, both_factors=True, exact=False, bit_exact=True)


def sent(tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """Everything, in every step."""
    return tensors
