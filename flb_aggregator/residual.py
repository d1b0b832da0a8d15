# SPDX-License-Identifier: Apache-2.0
"""Mode `factors` with a residual, over files: the mean of each factor, bit for bit as without one, and beside it the
frozen ranks that carry what that mean misses.

The frozen part rests on BLAS and is checked by certificate; the trained part is exact (docs/arithmetic.md 1).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb import moments
from flb.aggregation.mean import weighted_sum
from flb.delta import Float32, add_step, exact_in_float64, mean
from flb.errors import Refused
from flb.lora import gap, gram, product, residual
from flb.lora.gap import Gap
from flb.lora.shape import at_rank
from flb.server_optimizer import sgd
from flb.spec import RunSpec
from flb.types import Step
from flb.wire import container
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import Module, Round
from flb_aggregator.moments import RunOptimizer
from flb_aggregator.product import Made
from flb_aggregator.reweigh import Counted
from flb_aggregator.spans import PIECE


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
    """Write the adapter of rank r + r': number 0 of `files` is the base, then one update for each of `counted`. Returns how
    far it is from the ideal mean."""
    if to is not None:
        raise Refused("a residual changes in ranks that no update sends", "set run.down to f32")
    if optimizer.optimizer.moments:
        raise Refused("a residual goes with the mean of the factors, which moments change", "choose sgd")
    write(container.adapter_header(at_rank(spec.tensors, spec.lora.r + spec.lora.residual_rank)))
    held = Round(spec, step, counted, files, spec.server_optimizer.learning_rate)
    gaps: list[Gap] = []

    def write_made(made: Made) -> None:
        write(made.a.data.cast("B"))
        write(made.b.data.cast("B"))
        gaps.append(made.gap)

    in_order(held.modules, lambda: worker(held), write_made, threads)
    return sum(gaps, Gap())


def worker(held: Round) -> Callable[[Module], Made]:
    """A function that makes one module, with buffers of its own."""
    load, rank, average = held.loader(), held.spec.lora.residual_rank, averager(held)

    def make(module: Module) -> Made:
        stack = load(module)
        frozen = stack.frozen_a.shape[0]
        parts_b, parts_a = stack.left, stack.right
        if frozen:
            parts_b, parts_a = [*parts_b, stack.frozen_b], [*parts_a, stack.frozen_a]
        left, right = gram.of_columns(parts_b), gram.of_rows(parts_a)
        cut = product.truncate(residual.coefficients(held.taken, held.r, frozen), left, right, rank)
        rest = np.zeros((rank, module.a.shape[1]))
        b, a = product.factors(parts_b, parts_a, cut, rank, lambda: rest)
        own = slice(0, left.shape[0] - frozen)
        return Made(
            np.vstack([average(stack.right), a.astype("<f4")]),
            np.hstack([average(stack.left), b.astype("<f4")]),
            gap.of_factors(held.taken, held.r, left[own, own], right[own, own], cut),
        )

    return make


def averager(held: Round) -> Callable[[Sequence[Float32]], Float32]:
    """A function from a factor before and its updates, as a stack has them, to that factor's mean: the very numbers of
    `flb_aggregator.linear`."""
    ring, denominator = held.spec.ring, held.denominator
    narrow = exact_in_float64(denominator, ring.value_bound, ring.fraction_bits)
    sum_type: type[Any] = np.float64 if narrow else np.int64
    total, scaled = np.empty(PIECE, dtype=sum_type), np.empty(PIECE, dtype=sum_type)
    constants, nothing = moments.constants_of(held.spec, 0.0), np.empty((PIECE, 0))

    def blocks(parts: Sequence[Float32], start: int, count: int) -> Iterator[tuple[int, NDArray[Any]]]:
        for weight, part in zip(held.weights, parts, strict=True):
            units = part.reshape(-1)[start : start + count] * np.float32(2.0**ring.fraction_bits)
            np.copyto(scaled[:count], units, casting="unsafe")
            yield weight, scaled[:count]

    def average(parts: Sequence[Float32]) -> Float32:
        after = np.array(parts[0], dtype="<f4", order="C")
        flat = after.reshape(-1)
        for start in range(0, flat.size, PIECE):
            block = flat[start : start + PIECE]
            weighted_sum(blocks(parts[1:], start, block.size), total[: block.size])
            averaged = mean(total[: block.size], denominator, ring.fraction_bits)
            block[:] = add_step(block, sgd.step(averaged, nothing[: block.size], constants))
        return after

    return average
