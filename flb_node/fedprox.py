# SPDX-License-Identifier: Apache-2.0
"""FedProx (Li et al., 2020): each optimizer step also pulls the adapter back to where the round began.

The proximal term is mu/2 · |w - w0|² over the tensors that are trained. Its gradient, mu · (w - w0), is added to theirs
before clipping, as if it stood in the loss; the loss that is reported is without it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def pulled(weights: Iterable[torch.nn.Parameter], mu: float) -> Iterator[None]:
    """Add the term's gradient at every backward pass inside, from the values that the weights have now.

    A pass must be a whole optimizer step: with gradient accumulation the term would count once for each part.
    """
    handles = [
        weight.register_post_accumulate_grad_hook(_pull(weight.detach().clone(), mu))
        for weight in weights
        if mu and weight.requires_grad
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _pull(start: torch.Tensor, mu: float) -> Callable[[torch.Tensor], None]:
    def hook(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        weight.grad.add_(weight.detach() - start, alpha=mu)

    return hook
