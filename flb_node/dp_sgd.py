# SPDX-License-Identifier: Apache-2.0
"""DP-SGD on the adapter: Opacus' hooks give each example's gradient, and `flb.privacy.example` clips, adds and noises.

Opacus' own optimizer draws noise from torch's generator and clips in floats, so it is not used. The loss of an example is
the mean over its own tokens: the usual mean over all tokens of a batch makes a gradient depend on the other examples'
lengths, and then the sum moves by more than the clip norm when one example goes.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy

from flb.delta import Float32
from flb.errors import ConfigError, MissingTool
from flb.method_config import TrainingConfig
from flb.privacy.example import GradientSum, Secret, sample, step_key
from flb.spec import RunSpec, TrainingSpec
from flb_node.step_watch import StepWatch
from flb_node.tokens import IGNORED


def check(spec: RunSpec, local: TrainingConfig, processes: int) -> None:
    """Raise ConfigError for settings under which an example has no gradient of its own, and MissingTool without Opacus.
    Runs without privacy of examples pass."""
    if spec.privacy.mechanism != "example":
        return
    for wrong, what in (
        (spec.training.objective != "sft", f"the run's objective is {spec.training.objective}"),
        (local.packing, "training.packing mixes examples in a row"),
        (local.gradient_checkpointing, "training.gradient_checkpointing computes activations twice"),
        (processes > 1, "client.processes share a batch"),
    ):
        if wrong:
            raise ConfigError(f"{what}, and privacy of examples needs each one's gradient", "switch that off")
    try:
        import opacus  # noqa: F401
    except ImportError as error:
        raise MissingTool("privacy of examples needs Opacus", "pip install 'flb[dp]'") from error


def train(
    model: Any, weights: Mapping[str, torch.nn.Parameter], rows: Dataset, training: TrainingSpec, secret: Secret,
    watch: StepWatch, optimizer: torch.optim.Optimizer,
) -> None:  # fmt: skip
    """Train the weights that require a gradient, in place, for `secret.steps.releases` optimizer steps.

    An example that fits no row keeps its place among the others and adds nothing, so that the sampling rate follows from
    the public number. Raises what `watch` raises.
    """
    steps = secret.steps
    trained = [weight for weight in weights.values() if weight.requires_grad]
    starts = [weight.detach().clone() for weight in trained] if training.fedprox_mu else []
    at_once = group_size(model, training.batch_size)
    model.train()
    state = SimpleNamespace(global_step=0)
    with per_example(model) as hooks:
        for step in range(steps.releases):
            watch.on_step_begin(None, state, None, optimizer=optimizer)
            total = GradientSum(sum(weight.numel() for weight in trained), steps.clip_norm)
            drawn = [int(index) for index in sample(steps, step_key(secret.key, step, b"sample")) if index < len(rows)]
            losses: list[float] = []
            for start in range(0, len(drawn), at_once):
                # dropout must not be known, so its seed is secret; alone, an example's does not depend on the others
                seed = step_key(secret.key, step, b"dropout" + drawn[start].to_bytes(4, "big"))
                torch.manual_seed(int.from_bytes(seed[:8], "big"))
                for loss, gradient in gradients(model, trained, hooks, rows.select(drawn[start:][:at_once])):
                    losses.append(loss)
                    total.add(gradient)
            put(trained, total.noised(steps, step_key(secret.key, step, b"noise")))
            for weight, begun in zip(trained, starts, strict=False):
                weight.grad.add_(weight.detach() - begun, alpha=training.fedprox_mu)
            optimizer.step()
            state.global_step += 1
            watch.on_step_end(None, state, None)
            finite = [loss for loss in losses if np.isfinite(loss)]
            watch.on_log(None, state, None, {"loss": sum(finite) / max(1, len(finite))})


def group_size(model: Any, batch_size: int) -> int:
    """How many examples are computed together: a batch where all weights are float32, and one elsewhere. In a type of few
    bits an example's gradient depends visibly on who is beside it, and the sum would move by more than the clip norm."""
    return batch_size if all(weight.dtype == torch.float32 for weight in model.parameters()) else 1


@contextmanager
def per_example(model: Any) -> Iterator[Any]:
    """Opacus' hooks on the layers that are trained, for a while: `grad_sample` of a weight then has one gradient a row."""
    from opacus.grad_sample.grad_sample_module import GradSampleHooks

    hooks = GradSampleHooks(model, loss_reduction="sum")
    try:
        yield hooks
    finally:
        hooks.cleanup()


def gradients(
    model: Any, trained: Sequence[torch.nn.Parameter], hooks: Any, rows: Dataset
) -> Iterator[tuple[float, Float32]]:
    """Loss of each row, and its gradient over all trained weights, flat, in their order."""
    for weight in trained:
        weight.grad = None
    hooks.set_grad_sample_to_none()
    losses = example_losses(model, rows)
    with warnings.catch_warnings():
        # the first adapted layer's input has no gradient, and what the hook is for is that of its output
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        losses.sum().backward()
    samples = [weight.grad_sample.detach().flatten(1).float().cpu() for weight in trained]
    hooks.set_grad_sample_to_none()
    for index, loss in enumerate(losses.tolist()):
        yield loss, np.concatenate([part[index].numpy() for part in samples])


def example_losses(model: Any, rows: Dataset) -> torch.Tensor:
    """The loss of each row: the mean over its own tokens that are learned, whatever the others are."""
    device = next(model.parameters()).device
    ids = [torch.tensor(row) for row in rows["input_ids"]]
    labels = [torch.tensor(row) for row in rows["labels"]]
    mask = padded([torch.ones_like(row) for row in ids], 0).to(device)
    logits = model(input_ids=padded(ids, 0).to(device), attention_mask=mask, use_cache=False).logits
    wanted = padded(labels, IGNORED)[:, 1:].to(logits.device)
    tokens = cross_entropy(logits[:, :-1].transpose(1, 2).float(), wanted, ignore_index=IGNORED, reduction="none")
    return tokens.sum(1) / (wanted != IGNORED).sum(1)


def padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Rows of one length, filled up at the end."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def put(trained: Sequence[torch.nn.Parameter], flat: Float32) -> None:
    """The noised gradient in place of what the backward pass left."""
    values, start = torch.from_numpy(flat), 0
    for weight in trained:
        part = values[start : start + weight.numel()].view_as(weight)
        weight.grad = part.to(weight.device, weight.dtype)
        start += weight.numel()
