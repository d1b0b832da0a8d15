# SPDX-License-Identifier: Apache-2.0
"""The aggregator's path, top to bottom: admitted updates → reweigh → reduce → optimizer → finish. Under central privacy
the updates became one noised sum before (`flb_aggregator.noised_sum`), and the path begins with that.

A pure function of a round's inputs and their bytes: whoever has the blobs gets the same adapter, and `flb verify`
calls exactly this.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flb.errors import Fatal
from flb.lora.gap import Gap
from flb.spec import RunSpec
from flb.types import LoraMode, Step
from flb_aggregator import certify, gaps, linear, product, residual, stack
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.files import Files
from flb_aggregator.moments import Moments, RunOptimizer, optimizing
from flb_aggregator.reweigh import Counted, reweigh

Combine = Callable[[RunSpec, Step, Counted, Files, Write, int, Down | None, RunOptimizer], Gap | None]

COMBINE: dict[LoraMode, Combine] = {
    LoraMode.FACTORS: linear.combine,
    LoraMode.ALTERNATE: linear.combine,
    LoraMode.FREEZE_A: linear.combine,
    LoraMode.PRODUCT: product.combine,
    LoraMode.STACK: stack.combine,
}
"""By what is averaged."""


@dataclass(frozen=True, slots=True)
class Input:
    """One admitted update: its weight, and where its bytes are. Their number tells the rank it was trained at."""

    weight: int
    path: Path


def combine(
    spec: RunSpec,
    step: Step,
    base: Path,
    inputs: Sequence[Input],
    write: Write,
    threads: int | None = None,
    to: Down | None = None,
    moments: Moments | None = None,
) -> Gap | None:
    """Write the adapter that `step` makes from `base` and `inputs` (in order of node address).

    `write` gets the bytes in order, one call at a time, from several threads: `threads`, or one for each core, at
    most two. So do the writers of `to`, with which the adapter moves by the encoded step, and that of `moments`, which
    an optimizer that keeps some must have. Raises CorruptStore where a blob that was checked before is shorter now.
    Under central privacy `inputs` is the noised sum alone.
    Returns how far the adapter is from the mean of the products, where the mode knows it from its own pass.
    """
    remainder = [to.state] if to is not None and to.state is not None else []
    with Files([base, *(item.path for item in inputs), *remainder]) as files:
        threads = threads or cores()
        counted = count(spec, step, inputs, files, threads)
        how = residual.combine if spec.lora.residual_rank else COMBINE[spec.lora_mode]
        with optimizing(spec, step, moments) as optimizer:
            return how(spec, step, counted, files, write, threads, to, optimizer)


def count(spec: RunSpec, step: Step, inputs: Sequence[Input], files: Files, threads: int) -> Counted:
    """What each input counts, and the denominator: the spec's own under central privacy, whoever came."""
    if spec.privacy.central:
        if len(inputs) != 1:
            raise Fatal(
                "a central step was combined from updates, not from their noised sum", "report this as a defect"
            )
        return Counted(1, (1,), spec.privacy.denominator)
    return reweigh(spec, step, [item.weight for item in inputs], files, threads)


def measure_gap(
    spec: RunSpec, step: Step, base: Path, inputs: Sequence[Input], threads: int | None = None
) -> Gap | None:
    """How far the means of A and of B, each on its own, are from the mean of the products: a pass over the updates that
    takes longer than combining them, and decides nothing. None for a mode that knows it from its own pass, or has none, and
    under central privacy, where nothing but the noised sum may tell of the updates."""
    if spec.privacy.central or spec.lora_mode != LoraMode.FACTORS or spec.lora.residual_rank:
        return None
    with Files([base, *(item.path for item in inputs)]) as files:
        threads = threads or cores()
        counted = reweigh(spec, step, [item.weight for item in inputs], files, threads)
        return gaps.measure(spec, step, counted, files, threads) if gaps.measurable(spec, counted) else None


def certify_adapter(
    spec: RunSpec,
    step: Step,
    base: Path,
    inputs: Sequence[Input],
    published: Path,
    threads: int | None = None,
) -> tuple[list[str], Gap]:
    """Check an adapter that no other machine makes bit for bit: the modules that fail, and how far it is from the mean of
    the products. Raises CorruptStore where `published` is no adapter of this step."""
    with Files([base, *(item.path for item in inputs), published]) as files:
        threads = threads or cores()
        counted = reweigh(spec, step, [item.weight for item in inputs], files, threads)
        return certify.certify(spec, step, counted, files, threads)


def cores() -> int:
    """As many threads as share the work."""
    return min(2, os.cpu_count() or 1)
