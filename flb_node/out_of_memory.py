# SPDX-License-Identifier: Apache-2.0
"""A model or step that does not fit: one sentence, and what would fit, tried out on this device.

torch has a class of its own for GPUs alone: on a CPU a failed allocation is a RuntimeError with a known text, or
Python's MemoryError. (Linux may also kill the process before any allocation fails; nothing can be said then.)
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from flb.errors import OutOfMemory
from flb.spec import TrainingSpec

if TYPE_CHECKING:
    from flb_node.trainer import LocalTrainer

CPU_TEXTS = ("can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, or one that it came from, says that memory is out."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(seen, RuntimeError) and any(text in str(seen) for text in CPU_TEXTS):
            return True
        seen = seen.__cause__
    return False


@contextmanager
def while_loading(bits: int | None) -> Iterator[None]:
    """Raise OutOfMemory if memory runs out inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        smaller = {None: "set model.quantization to 8 or 4", 8: "set model.quantization to 4"}
        raise OutOfMemory(
            "the base model does not fit into memory", smaller.get(bits, "train on a device with more memory")
        ) from error


@contextmanager
def explained(local: "LocalTrainer", training: TrainingSpec) -> Iterator[None]:
    """Raise OutOfMemory, with what would fit, if memory runs out inside."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = error.with_traceback(None)  # its frames hold the tensors that did not fit
        failed.__context__ = failed.__cause__ = None
    else:
        return
    raise OutOfMemory(
        f"a step of {training.batch_size} examples of up to {training.max_length} tokens does not fit into memory",
        remedy(local, training),
    ) from failed


def remedy(local: "LocalTrainer", training: TrainingSpec) -> str:
    """What fits here, tried out: checkpointing with the same batch, then smaller batches."""
    ways = []
    rows, length = training.batch_size, training.max_length
    if not local.checkpointing:
        fits = _fits(local, rows, length, checkpointing=True)
        ways.append(f"set training.gradient_checkpointing: true{' (this fits here)' if fits else ''}")
    if local.quantization != 4:
        ways.append(f"set model.quantization: {'4' if local.quantization else '8 or 4'}")
    smaller = rows // 2
    while smaller and not _fits(local, smaller, length, checkpointing=local.checkpointing):
        smaller //= 2
    if smaller:
        ways.append(f"join a run with training.batch_size {smaller} (this fits here)")
    else:
        ways.append("join a run with a smaller training.max_length")
    return ", or ".join(ways)


def _fits(local: "LocalTrainer", rows: int, length: int, *, checkpointing: bool) -> bool:
    """Whether one forward and backward pass of so many tokens can be computed, all of them with a loss."""
    model = local.model
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    vocabulary = model.get_input_embeddings().num_embeddings
    handle = None
    model.train()
    try:
        if checkpointing:
            model.get_base_model().gradient_checkpointing_enable()
            handle = model.get_input_embeddings().register_forward_hook(lambda _m, _i, out: out.requires_grad_(True))
        ids = (torch.arange(rows * length) % vocabulary).reshape(rows, length).to(model.device)
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        if handle is not None:
            handle.remove()
            model.get_base_model().gradient_checkpointing_disable()
        model.zero_grad(set_to_none=True)
        model.eval()
    return True
