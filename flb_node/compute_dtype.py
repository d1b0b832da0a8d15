# SPDX-License-Identifier: Apache-2.0
"""In which type the base model computes: bfloat16 where it is faster, measured on this machine.

CPUs differ: bfloat16 is up to twice as fast with matrix units and can be slower than float32 without them, so
one small training step of each is timed. The LoRA weights stay float32 in any case.
"""

import time
from collections.abc import Callable, Mapping

import torch
from transformers import PreTrainedModel

CHOICES = ("auto", "float32", "bfloat16")
ROWS, LENGTH = 2, 32
"""Size of the measured step in tokens: large enough to be bound by matrix products, small enough not to be noticed."""

MARGIN = 0.9
"""bfloat16 has to take at most this part of float32's time: a draw, which the next start could reverse, is float32."""


def candidates(device: str) -> tuple[str, ...]:
    """The types worth measuring. CUDA needs no measurement: where the GPU knows bfloat16, that is faster and smaller."""
    if device.startswith("cuda"):
        return ("bfloat16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ("float32",)
    if device == "mps" and not torch.backends.mps.is_macos_or_newer(14, 0):
        return ("float32",)
    return ("bfloat16", "float32")


def choose(seconds: Mapping[str, float]) -> str:
    """The faster type, from the seconds of one step of each."""
    if len(seconds) < 2:
        return next(iter(seconds))
    return "bfloat16" if seconds["bfloat16"] <= MARGIN * seconds["float32"] else "float32"


def step_seconds(model: PreTrainedModel, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one forward and backward pass after a warm-up, the better of two."""
    vocabulary = model.get_input_embeddings().num_embeddings
    ids = (torch.arange(ROWS * LENGTH) % vocabulary).reshape(ROWS, LENGTH).to(model.device)
    taken = []
    for _ in range(3):
        start = clock()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        loss.item()  # waits for the device
        taken.append(clock() - start)
    model.zero_grad(set_to_none=True)
    return min(taken[1:])
