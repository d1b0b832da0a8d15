# SPDX-License-Identifier: Apache-2.0
"""Whether a model keeps the examples of a packed row apart, found by trying: names of architectures go out of date.

transformers makes attention boundaries out of position ids that begin anew. State-space models, and models whose own
code makes the mask, may not look at them; then each example would see the ones before it.
"""

import torch
from transformers import PreTrainedModel

from flb.errors import ConfigError

PART = 4
"""Tokens of each of the two parts."""


def check(model: PreTrainedModel) -> None:
    """Raise ConfigError if another first part changes what the model says to the second."""
    with torch.inference_mode():
        training = model.training
        model.eval()
        one, other = (_second_part(model, first) for first in (1, 2))
        model.train(training)
    if not torch.allclose(one.float(), other.float(), rtol=0, atol=1e-3 * float(one.float().abs().max())):
        raise ConfigError("this base model does not keep packed examples apart", "set training.packing: false")


def _second_part(model: PreTrainedModel, first: int) -> torch.Tensor:
    """Logits of the second part of a row whose first part repeats the token `first`."""
    ids = torch.tensor([[first] * PART + [3] * PART], device=model.device)
    places = torch.tensor([[*range(PART), *range(PART)]], device=model.device)
    logits: torch.Tensor = model(input_ids=ids, position_ids=places, use_cache=False).logits
    return logits[:, PART:]
