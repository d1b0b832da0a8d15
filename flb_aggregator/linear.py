# SPDX-License-Identifier: Apache-2.0
"""Modes whose mean is linear in what nodes send: block by block, Σ w·q or order statistics, division, optimizer,
one addition, one cast.

Updates are walked in blocks, in node order, with buffers that are reused; memory grows neither with the cohort nor
with the adapter. Spans of tensors are spread over threads; the result does not depend on them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flb.admission import layout_of
from flb.delta import Float64, add_step, exact_in_float64, mean
from flb.down import state_header
from flb.errors import CorruptStore
from flb.server_optimizer.tau import square_sum
from flb.spec import RunSpec
from flb.types import Step
from flb.wire import container
from flb_aggregator.encoded_step import Down, Encoder, StepWriter, Write
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.moments import RunOptimizer
from flb_aggregator.noised_sum import NoisedSum
from flb_aggregator.reduce import Reduce, ranked, weighted
from flb_aggregator.reweigh import Counted
from flb_aggregator.ring_blocks import RingBlocks
from flb_aggregator.spans import PIECE, SPAN, Made, Span, spans


def combine(
    spec: RunSpec,
    step: Step,
    counted: Counted,
    files: Files,
    write: Write,
    threads: int,
    to: Down | None,
    optimizer: RunOptimizer,
) -> None:
    """Write the adapter: number 0 of `files` is the base, then the updates, then the remainder that the step before
    left, where there is one."""
    header = container.adapter_header(spec.tensors)
    write(header)
    combined = Combiner(spec, step, counted, files, len(header), optimizer, to)
    optimizer.begin(lambda: combined.first_mean(threads))
    encoded = StepWriter(spec, step, to) if to is not None else None

    def write_made(made: Made) -> None:
        write(made.adapter)
        optimizer.write(made.moments)
        if encoded is not None:
            encoded.take(made)

    in_order(list(spans(spec.tensors)), combined.worker, write_made, threads)


class Combiner:
    """What the threads of one `combine` share, all of it constant."""

    def __init__(
        self,
        spec: RunSpec,
        step: Step,
        counted: Counted,
        files: Files,
        adapter_start: int,
        optimizer: RunOptimizer,
        to: Down | None = None,
    ) -> None:
        self.spec, self.step, self.counted, self.files, self.adapter_start = spec, step, counted, files, adapter_start
        self.optimizer = optimizer
        self.to, self.state_start = to, len(state_header(spec, Step(step - 1)))
        if to is not None and to.state is not None:
            self.check_state(to.state)
        self.layout = layout_of(spec, step)
        self.numbers = {tensor.name: number for number, tensor in enumerate(self.layout.tensors)}
        narrow = exact_in_float64(
            max(sum(counted.weights), counted.denominator), spec.ring.value_bound, spec.ring.fraction_bits
        )
        self.sum_type: type[Any] = np.float64 if narrow and not spec.privacy.central else np.int64

    def worker(self) -> Callable[[Span], Made]:
        """A function that combines one span, with buffers of its own; the bytes are valid until its next call."""
        encoder = Encoder(self.to.run, self.step, self.layout, self.read_state) if self.to is not None else None
        made, optimizer, averager = np.empty(SPAN, dtype="<f4"), self.optimizer.worker(), self.averager()

        def combine_span(span: Span) -> Made:
            after = made[: span.count]
            self.files.fill(0, self.adapter_start + 4 * span.position, after.data.cast("B"))
            if encoder is not None:
                encoder.begin(span)
            optimizer.begin(span)
            if span.tensor.name in self.numbers:
                for start in range(0, span.count, PIECE):
                    block = after[start : start + PIECE]
                    stepped = optimizer.step(start, averager(span, start, block.size))
                    block[:] = add_step(block, stepped if encoder is None else encoder.encode(start, stepped))
            adapter = after.data.cast("B")
            result = Made(span, adapter) if encoder is None else encoder.made(adapter)
            return result._replace(moments=optimizer.made())

        return combine_span

    def averager(self) -> Callable[[Span, int, int], Float64]:
        """What the rule makes of a piece of a span that the step sends, from its first element and number of elements on;
        with buffers of its own."""
        total, reduce = np.empty(PIECE, dtype=self.sum_type), self.reducer()

        def average(span: Span, start: int, count: int) -> Float64:
            reduce(self.numbers[span.tensor.name], span.start + start, total[:count])
            return mean(total[:count], self.counted.denominator, self.spec.ring.fraction_bits)

        return average

    def reducer(self) -> Reduce:
        """What makes a block's total of the updates, or reads it from the noised sum, with buffers of its own."""
        if self.spec.privacy.central:
            return NoisedSum(self.spec, self.step, self.files).reduce
        blocks = RingBlocks(self.files, self.layout, self.spec.ring.fraction_bits, PIECE)
        if self.counted.kept is None:
            return weighted(blocks, self.counted.weights, self.sum_type, PIECE)
        return ranked(blocks, self.counted.updates, self.counted.kept, self.counted.mixture, self.sum_type)

    def first_mean(self, threads: int) -> tuple[int, int]:
        """Σ r² of the mean, and the number of its elements: a pass over the updates of its own."""
        sent = [span for span in spans(self.spec.tensors) if span.tensor.name in self.numbers]
        squares: list[int] = []

        def worker() -> Callable[[Span], int]:
            averager = self.averager()

            def squares_of(span: Span) -> int:
                pieces = range(0, span.count, PIECE)
                means = (averager(span, start, min(PIECE, span.count - start)) for start in pieces)
                return sum(square_sum(averaged, self.spec.ring.norm_bound) for averaged in means)

            return squares_of

        in_order(sent, worker, squares.append, threads)
        return sum(squares), sum(span.count for span in sent)

    def read_state(self, span: Span, part: memoryview) -> None:
        """What the step before left of a span, in float32; nothing before the first step."""
        if self.to is None or self.to.state is None:
            part[:] = bytes(len(part))
        else:
            self.files.fill(self.counted.updates + 1, self.state_start + 4 * span.position, part)

    def check_state(self, path: Path) -> None:
        """Raises CorruptStore unless the file is what the step before left."""
        held = memoryview(bytearray(self.state_start))
        self.files.fill(self.counted.updates + 1, 0, held)
        if held != state_header(self.spec, Step(self.step - 1)):
            raise CorruptStore(f"{path} is not what the step before left", "restore the blob from another copy")
