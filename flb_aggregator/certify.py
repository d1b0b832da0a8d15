# SPDX-License-Identifier: Apache-2.0
"""Check a published adapter whose bits rest on BLAS: the exact part bit for bit, the rest by certificate.

Who verifies computes the singular values anew from the updates, and accepts factors that are within tolerance the best
product of their rank (`flb.lora.certificate`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flb import moments
from flb.delta import Float32, Float64
from flb.errors import CorruptStore
from flb.lora import certificate, gram, mean_product, residual
from flb.lora.certificate import Certificate
from flb.lora.gap import Gap
from flb.spec import RunSpec
from flb.types import LoraMode, Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import AdapterFile, Module, Round, Stack, modules
from flb_aggregator.residual import averager
from flb_aggregator.reweigh import Counted

SAME = 1e-3
"""Relative distance of factors and of moments that two machines may have."""
RESTING = 1e-6
"""The same of the moments of a tensor that hardly moved, relative to those of all."""
MOMENTS = 1 << 16
"""Elements whose moments are compared at a time."""


class Judged(NamedTuple):
    """One module: whether its published factors stand, and their gap."""

    module: Module
    stands: bool
    gap: Gap


def bit_exact(spec: RunSpec) -> bool:
    """Whether any machine makes the same bytes of the run's adapters."""
    return spec.lora_mode != LoraMode.PRODUCT and not spec.lora.residual_rank


def certify(spec: RunSpec, step: Step, counted: Counted, files: Files, threads: int) -> tuple[list[str], Gap]:
    """Names of the modules that fail, and the gap of the step: number 0 of `files` is the base, then one update for each of
    `weights`, last the published adapter. Raises CorruptStore where that is no adapter of this step."""
    held = Round(spec, step, counted, files, spec.server_optimizer.learning_rate)
    published = AdapterFile(spec, files, counted.updates + 1)
    check_form(published, spec)
    judged: list[Judged] = []
    judge = with_residual if spec.lora.residual_rank else in_product
    in_order(held.modules, lambda: worker(held, published, judge), judged.append, threads)
    return [one.module.name for one in judged if not one.stands], sum((one.gap for one in judged), Gap())


def check_form(published: AdapterFile, spec: RunSpec) -> None:
    """Raises CorruptStore unless a published adapter has the rank that every step's has."""
    if published.rank != spec.lora.r + spec.lora.residual_rank:
        raise CorruptStore("the published adapter has the rank of adapter 0", "fetch it again")


def near(spec: RunSpec, files: Files) -> list[str]:
    """Names of the modules in which two adapters differ by more than rounding: number 0 of `files` was made here, number 1
    published. Both took a step with moments, so they are compared, product and factors, not certified."""
    own, published = AdapterFile(spec, files, 0), AdapterFile(spec, files, 1)
    check_form(published, spec)
    failed = []
    for module in modules(spec.tensors):
        pairs = [file.read(module, np.empty(file.rank * module.extent, dtype="<f4")) for file in (own, published)]
        left, right = gram.of_columns([b for _, b in pairs]), gram.of_rows([a for a, _ in pairs])
        r = own.rank
        apart = np.diag(np.repeat([1.0, -1.0], r))
        whole = np.diag(np.repeat([1.0, 0.0], r))
        error, size = gram.square(apart, left, right), gram.square(whole, left, right)
        same = all(_same(one, other) for one, other in zip(pairs[0], pairs[1], strict=True))
        if not (error <= certificate.WHOLE_TOLERANCE * size and same):
            failed.append(module.name)
    return failed


def near_moments(spec: RunSpec, step: Step, own: Path, published: Path) -> list[str]:
    """Names of the tensors whose moments differ from those made here by more than rounding; `header` before the data.

    Each moment of a tensor is held against its own size: v is of the order of m², and would drown in m. Where a tensor
    rests, its m is rounding alone, so so much of the whole is let pass.
    """
    count = moments.optimizer_of(spec).moments
    header, item = moments.header_size(spec, step), 8 * count
    with own.open("rb") as one, published.open("rb") as other:
        if one.read(header) != other.read(header) or own.stat().st_size != published.stat().st_size:
            return ["header"]
        missed, size = np.zeros((len(spec.tensors), count)), np.zeros((len(spec.tensors), count))
        for number, tensor in enumerate(spec.tensors):
            for start in range(0, tensor.size, MOMENTS):
                wanted = min(MOMENTS, tensor.size - start) * item
                ours, theirs = (np.frombuffer(file.read(wanted), "<f8").reshape(-1, count) for file in (one, other))
                with np.errstate(invalid="ignore", over="ignore"):
                    missed[number] += ((ours - theirs) ** 2).sum(axis=0)
                size[number] += (ours * ours).sum(axis=0)
    same = missed <= SAME * SAME * size + RESTING * RESTING * size.sum(axis=0)
    return [tensor.name for tensor, near in zip(spec.tensors, same, strict=True) if not near.all()]


def _same(own: Float32, published: Float32) -> bool:
    """Whether two factors are near in every sense that counts."""
    with np.errstate(invalid="ignore", over="ignore"):
        difference = float(((own.astype(np.float64) - published) ** 2).sum())
    return difference <= SAME * SAME * float((own.astype(np.float64) ** 2).sum())


Judge = Callable[[Round, Module, Stack, Float32, Float32], Judged]


def worker(held: Round, published: AdapterFile, judge: Judge) -> Callable[[Module], Judged]:
    """A function that judges one module, with buffers of its own."""
    load = held.loader()
    buffer = np.empty(published.rank * max(module.extent for module in held.modules), dtype="<f4")

    def one(module: Module) -> Judged:
        a, b = published.read(module, buffer)
        with np.errstate(invalid="ignore", over="ignore"):  # of factors that hold infinity nothing stands
            return judge(held, module, load(module), b, a)

    return one


def in_product(held: Round, module: Module, stack: Stack, b: Float32, a: Float32) -> Judged:
    """Mode product: the published factors are the best product, and unused directions are adapter 0's."""
    lora, r = held.spec.lora, held.r
    left, right = gram.of_columns([*stack.left, b]), gram.of_rows([*stack.right, a])
    idle = ~b.any(axis=0)
    spare = held.spare(module) if idle.any() or lora.align else np.zeros((0, 0), dtype=np.float32)
    found = certificate.check(
        mean_product.target(held.taken, r), left, right, r, lora.energy, _squares(spare), ordered=not lora.align
    )
    kept = lora.align or not idle.any() or bool((a[idle] == spare[idle]).all())
    return Judged(module, found.accepted and kept, _gap_of(held, left, right, found))


def with_residual(held: Round, module: Module, stack: Stack, b: Float32, a: Float32) -> Judged:
    """Mode factors with a residual: the trained ranks bit for bit, the frozen ones by certificate."""
    r, frozen = held.r, stack.frozen_a.shape[0]
    average = averager(held)
    exact = np.array_equal(average(stack.left), b[:, :r]) and np.array_equal(average(stack.right), a[:r])
    parts_b, parts_a = [*stack.left, stack.frozen_b, b[:, r:]], [*stack.right, stack.frozen_a, a[r:]]
    left, right = gram.of_columns(parts_b), gram.of_rows(parts_a)
    rank = held.spec.lora.residual_rank
    found = certificate.check(residual.coefficients(held.taken, r, frozen), left, right, rank)
    return Judged(module, exact and found.accepted, _gap_of(held, left, right, found))


def _gap_of(held: Round, left: Float64, right: Float64, found: Certificate) -> Gap:
    """From the Gram matrices of a stack and more, and what its cut lost."""
    own = slice(0, held.r + sum(update.rank for update in held.updates))
    moved = gram.square(mean_product.move(held.taken, held.r), left[own, own], right[own, own])
    return Gap(found.tail, moved, found.tail, found.whole)


def _squares(spare: Float32) -> Float64 | None:
    """Square norms of the rows of A in adapter 0; None where they are not asked for."""
    wide = spare.astype(np.float64)
    return (wide * wide).sum(axis=1) if spare.size else None
