# SPDX-License-Identifier: Apache-2.0
"""Mode `stack` (FLoRA, Wang et al., NeurIPS 2024, arXiv 2409.05976): the mean of the products as a concatenation.

In every step each node trains a fresh adapter, of a rank of its own, on top of all that was stacked before, which
stays frozen. Σ pᵢ BᵢAᵢ = [p₁B₁ … p_KB_K]·[A₁; …; A_K], so the next adapter is [B | p₁B₁ … p_KB_K], [A; A₁; …; A_K]: exact but
for one rounding of each value, and its rank grows by Σ rᵢ, within the bound that `flb.legality` asks for. One side
alone is scaled. Adapter 0 has B = 0 and is not part of the stack.
"""

from flb.capabilities import ModeCapabilities
from flb.types import Step, TensorSpec

CAPABILITIES = ModeCapabilities(
    linear=False, both_factors=True, exact=True, bit_exact=True, ranks_differ=True, restarts=True
)


def sent(tensors: tuple[TensorSpec, ...], step: Step) -> tuple[TensorSpec, ...]:
    """Both factors, in every step."""
    return tensors


def kept_rank(rank: int, step: Step) -> int:
    """How many ranks of the adapter of rank `rank` that step `step` starts from go on in the next: none of adapter 0's."""
    return 0 if step == 1 else rank
