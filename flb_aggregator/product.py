# SPDX-License-Identifier: Apache-2.0
"""Mode `product` over files: module by module the mean of the products, cut to the run's rank, in file order.

Threads take whole modules; what BLAS adds up has no fixed order, so another machine's bytes may differ in the last
bits. Therefore the aggregator keeps what it made before it tells anybody (`flb_aggregator.made`), and `flb verify`
checks a certificate (`flb_aggregator.certify`). With `align` the basis is the one nearest to the adapter before, so that the
difference is a step like any other and goes through the run's server optimizer; without it the mean moves by the
learning rate in product space.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from flb.delta import Float32, add_step
from flb.errors import Refused
from flb.lora import gap, gram, mean_product, procrustes, product
from flb.lora.gap import Gap
from flb.server_optimizer import sgd
from flb.spec import RunSpec
from flb.types import Step
from flb.wire import container
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import Module, Round


class Made(NamedTuple):
    """One module of the next adapter."""

    a: Float32
    b: Float32
    gap: Gap


def combine(
    spec: RunSpec, step: Step, weights: Sequence[int], files: Files, write: Write, threads: int, to: Down | None
) -> Gap:
    """Write the adapter: number 0 of `files` is the base, then one update for each of `weights`. Returns how far it is from
    the ideal mean."""
    if to is not None:
        raise Refused("mode product turns the adapter, which no encoded step can", "set run.down to f32")
    write(container.adapter_header(spec.tensors))
    rate = 1.0 if spec.lora.align else spec.server_optimizer.learning_rate
    held = Round(spec, step, weights, files, rate)
    gaps: list[Gap] = []

    def write_made(made: Made) -> None:
        write(made.a.data.cast("B"))
        write(made.b.data.cast("B"))
        gaps.append(made.gap)

    in_order(held.modules, lambda: worker(held), write_made, threads)
    return sum(gaps, Gap())


def worker(held: Round) -> Callable[[Module], Made]:
    """A function that makes one module, with buffers of its own."""
    load, lora = held.loader(), held.spec.lora
    coefficients = mean_product.target(held.taken, held.r)

    def make(module: Module) -> Made:
        stack = load(module)
        left, right = gram.of_columns(stack.left), gram.of_rows(stack.right)
        cut = product.truncate(coefficients, left, right, held.r, lora.energy)
        b, a = product.factors(stack.left, stack.right, cut, held.r, lambda: held.spare(module))
        if lora.align:
            before_b, before_a = stack.left[0], stack.right[0]
            b, a = procrustes.align(b, a, before_b, before_a)
            rate = held.spec.server_optimizer.learning_rate
            after_a = add_step(before_a, sgd.step(a - before_a, rate))
            after_b = add_step(before_b, sgd.step(b - before_b, rate))
        else:
            after_a, after_b = a.astype("<f4"), b.astype("<f4")
        return Made(after_a, after_b, gap.of_product(held.taken, held.r, left, right, cut))

    return make
