# SPDX-License-Identifier: Apache-2.0
"""Check a published adapter whose bits rest on BLAS: the exact part bit for bit, the rest by certificate.

Who verifies computes the singular values anew from the updates, and accepts factors that are within tolerance the best
product of their rank (`flb.lora.certificate`).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flb.delta import Float32, Float64
from flb.errors import CorruptStore
from flb.lora import certificate, gram, mean_product, residual
from flb.lora.certificate import Certificate
from flb.lora.gap import Gap
from flb.spec import RunSpec
from flb.types import LoraMode, Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import AdapterFile, Module, Round, Stack
from flb_aggregator.residual import averager


class Judged(NamedTuple):
    """One module: whether its published factors stand, and their gap."""

    module: Module
    stands: bool
    gap: Gap


def bit_exact(spec: RunSpec) -> bool:
    """Whether any machine makes the same bytes of the run's adapters."""
    return spec.lora_mode != LoraMode.PRODUCT and not spec.lora.residual_rank


def certify(spec: RunSpec, step: Step, weights: Sequence[int], files: Files, threads: int) -> tuple[list[str], Gap]:
    """Names of the modules that fail, and the gap of the step: number 0 of `files` is the base, then one update for each of
    `weights`, last the published adapter. Raises CorruptStore where that is no adapter of this step."""
    rate = 1.0 if spec.lora.align else spec.server_optimizer.learning_rate
    held = Round(spec, step, weights, files, rate)
    published = AdapterFile(spec, files, len(weights) + 1)
    header = bytearray(len(published.header))
    files.fill(published.number, 0, memoryview(header))
    if bytes(header) != published.header or published.rank != spec.lora.r + spec.lora.residual_rank:
        raise CorruptStore("the published adapter is not of this run's form", "fetch it again")
    judged: list[Judged] = []
    judge = with_residual if spec.lora.residual_rank else in_product
    in_order(held.modules, lambda: worker(held, published, judge), judged.append, threads)
    return [one.module.name for one in judged if not one.stands], sum((one.gap for one in judged), Gap())


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
