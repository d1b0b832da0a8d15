# SPDX-License-Identifier: Apache-2.0
"""Mode `product` over files: module by module the mean of the products, cut to the run's rank, in file order.

Threads take whole modules; what BLAS adds up has no fixed order, so another machine's bytes may differ in the last
bits. Therefore the aggregator keeps what it made before it tells anybody (`flb_aggregator.made`), and `flb verify`
checks a certificate (`flb_aggregator.certify`). Server SGD moves by its learning rate in product space. With `align` the
basis is the one nearest to the adapter before, so that the difference of two adapters is a step like any other, and an
optimizer that keeps moments may take it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from flb import moments
from flb.delta import Float32, Float64, add_step
from flb.errors import Refused
from flb.lora import gap, gram, mean_product, procrustes, product
from flb.lora.gap import Gap
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.linear import Combiner
from flb_aggregator.module_stack import Module, Round
from flb_aggregator.moments import RunOptimizer, SpanOptimizer
from flb_aggregator.reweigh import Counted
from flb_aggregator.spans import PIECE, spans


class Made(NamedTuple):
    """One module of the next adapter, and the moments of both factors in file order, empty where the optimizer keeps
    none."""

    a: Float32
    b: Float32
    gap: Gap
    moments: bytes = b""


def combine(
    spec: RunSpec,
    step: Step,
    counted: Counted,
    files: Files,
    write: Write,
    threads: int,
    to: Down | None,
    optimizer: RunOptimizer,
) -> Gap:
    """Write the adapter: number 0 of `files` is the base, then one update for each of `counted`. Returns how far it is from
    the ideal mean."""
    if to is not None:
        raise Refused("mode product turns the adapter, which no encoded step can", "set run.down to f32")
    kept = moments.keeps_moments(spec)
    if kept and not spec.lora.align:
        raise Refused("mode product turns the adapter, so its moments mean nothing", "set lora.align, or choose sgd")
    header = container.adapter_header(spec.tensors)
    write(header)
    optimizer.begin(lambda: Combiner(spec, step, counted, files, len(header), optimizer).first_mean(threads))
    held = Round(spec, step, counted, files, 1.0 if kept else spec.server_optimizer.learning_rate)
    gaps: list[Gap] = []

    def write_made(made: Made) -> None:
        write(made.a.data.cast("B"))
        write(made.b.data.cast("B"))
        optimizer.write(memoryview(made.moments))
        gaps.append(made.gap)

    in_order(held.modules, lambda: worker(held, optimizer), write_made, threads)
    return sum(gaps, Gap())


def worker(held: Round, optimizer: RunOptimizer) -> Callable[[Module], Made]:
    """A function that makes one module, with buffers of its own."""
    load, lora = held.loader(), held.spec.lora
    coefficients = mean_product.target(held.taken, held.r)
    stepper = optimizer.worker() if moments.keeps_moments(held.spec) else None

    def make(module: Module) -> Made:
        stack = load(module)
        left, right = gram.of_columns(stack.left), gram.of_rows(stack.right)
        cut = product.truncate(coefficients, left, right, held.r, lora.energy)
        b, a = product.factors(stack.left, stack.right, cut, held.r, lambda: held.spare(module))
        missed = gap.of_product(held.taken, held.r, left, right, cut)
        if lora.align:
            b, a = procrustes.align(b, a, stack.left[0], stack.right[0])
        if stepper is None:
            return Made(a.astype("<f4"), b.astype("<f4"), missed)
        fresh = not stack.left[0].any()
        position = held.base.position(module)
        after_a, moments_a = stepped(stepper, module.a, position, stack.right[0], a, fresh)
        after_b, moments_b = stepped(stepper, module.b, position + module.a.size, stack.left[0], b, fresh)
        return Made(after_a, after_b, missed, moments_a + moments_b)

    return make


def stepped(
    optimizer: SpanOptimizer, tensor: TensorSpec, position: int, before: Float32, wanted: Float64, fresh: bool
) -> tuple[Float32, bytes]:
    """One factor after the optimizer's step towards `wanted`, and its moments; `position` is its first element's number in the
    adapter.

    Where it is `fresh`, B was zero and the product with it: the basis before has no meaning and A the size of its start,
    so the factor is set, and the moments stay as they begin. A step would carry that jump into every later round.
    """
    old, new = before.reshape(-1), wanted.reshape(-1)
    after, held = np.empty(tensor.size, dtype="<f4"), bytearray()
    for span in spans([tensor]):
        optimizer.begin(replace(span, position=position + span.start))
        for start in range(0, span.count, PIECE):
            piece = slice(span.start + start, span.start + min(start + PIECE, span.count))
            if fresh:
                after[piece] = new[piece]
            else:
                after[piece] = add_step(old[piece], optimizer.step(start, new[piece] - old[piece]))
        held += optimizer.made()
    return after.reshape(tensor.shape), bytes(held)
