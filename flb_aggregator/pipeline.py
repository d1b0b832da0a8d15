# SPDX-License-Identifier: Apache-2.0
"""The aggregator's path, top to bottom: admitted updates → reweigh → reduce → optimizer → finish.

A pure function of a round's inputs and their bytes: whoever has the blobs gets the same adapter, and `flb verify`
calls exactly this. Updates are walked in blocks, in node order, with buffers that are reused; memory grows neither
with the cohort nor with the adapter. Spans of tensors are spread over threads; the result does not depend on them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.admission import BlockReader, ReadInto, layout_of
from flb.aggregation.mean import weighted_sum
from flb.delta import Float64, add_step, exact_in_float64, mean, round_to_ring
from flb.down import state_header
from flb.errors import BadContainer, CorruptStore
from flb.server_optimizer import sgd
from flb.server_optimizer.constants import Constants
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.encoded_step import Down, Encoder, StepWriter, Write
from flb_aggregator.in_order import in_order
from flb_aggregator.spans import PIECE, SPAN, Made, Span, spans

KEPT_OPEN = 256
"""Updates whose files stay open; the others are opened for each block, so that a cohort has no limit."""


@dataclass(frozen=True, slots=True)
class Input:
    """One admitted update: its weight, and where its bytes are."""

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
) -> None:
    """Write the adapter that `step` makes from `base` and `inputs` (in order of node address).

    `write` gets the bytes in order, one call at a time, from several threads: `threads`, or one for each core, at
    most two. So do the writers of `to`, with which the adapter moves by the encoded step. Raises CorruptStore where a
    blob that was checked before is shorter now.
    """
    header = container.adapter_header(spec.tensors)
    write(header)
    state = [to.state] if to is not None and to.state is not None else []
    with Files([base, *(item.path for item in inputs), *state]) as files:
        combined = Combiner(spec, step, [item.weight for item in inputs], files, len(header), to)
        encoded = StepWriter(spec, step, to) if to is not None else None

        def write_made(made: Made) -> None:
            write(made.adapter)
            if encoded is not None:
                encoded.take(made)

        in_order(list(spans(spec.tensors)), combined.worker, write_made, threads or min(2, os.cpu_count() or 1))


class Combiner:
    """What the threads of one `combine` share, all of it constant."""

    def __init__(
        self,
        spec: RunSpec,
        step: Step,
        weights: Sequence[int],
        files: "Files",
        adapter_start: int,
        to: Down | None = None,
    ) -> None:
        self.spec, self.step, self.weights, self.files, self.adapter_start = spec, step, weights, files, adapter_start
        self.to, self.state_start = to, len(state_header(spec, Step(step - 1)))
        if to is not None and to.state is not None:
            self.check_state(to.state)
        self.layout = layout_of(spec, step)
        self.numbers = {tensor.name: number for number, tensor in enumerate(self.layout.tensors)}
        self.denominator = sum(weights)
        narrow = exact_in_float64(self.denominator, spec.ring.value_bound, spec.ring.fraction_bits)
        self.sum_type: type[Any] = np.float64 if narrow else np.int64

    def worker(self) -> Callable[[Span], Made]:
        """A function that combines one span, with buffers of its own; the bytes are valid until its next call."""
        encoder = Encoder(self.to.run, self.step, self.layout, self.read_state) if self.to is not None else None
        made = np.empty(SPAN, dtype="<f4")
        total, scaled = np.empty(PIECE, dtype=self.sum_type), np.empty(PIECE, dtype=self.sum_type)
        reader = BlockReader(self.layout, PIECE)

        def combine_span(span: Span) -> Made:
            after = made[: span.count]
            self.files.fill(0, self.adapter_start + 4 * span.position, after.data.cast("B"))
            if encoder is not None:
                encoder.begin(span)
            if span.tensor.name in self.numbers:
                for start in range(0, span.count, PIECE):
                    block = after[start : start + PIECE]
                    first, count = span.start + start, block.size
                    weighted_sum(self.blocks(reader, span.tensor, first, scaled[:count]), total[:count])
                    stepped = self.stepped(total[:count])
                    block[:] = add_step(block, stepped if encoder is None else encoder.encode(start, stepped))
            adapter = after.data.cast("B")
            return Made(span, adapter) if encoder is None else encoder.made(adapter)

        return combine_span

    def blocks(
        self, reader: BlockReader, tensor: TensorSpec, start: int, scaled: NDArray[Any]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Weight and ring values of one block of each update, all in the buffer `scaled`."""
        for index, weight in enumerate(self.weights, start=1):
            try:
                values = reader.values(self.files.source(index), self.numbers[tensor.name], start, scaled.size)
            except BadContainer as error:
                raise CorruptStore(
                    f"{self.files.paths[index]} was altered since it was admitted", "restore the blob from another copy"
                ) from error
            round_to_ring(values, self.spec.ring.fraction_bits, out=values)
            np.copyto(scaled, values, casting="unsafe")
            yield weight, scaled

    def stepped(self, total: NDArray[Any]) -> Float64:
        """What a block of the adapter moves by, from Σ w·q."""
        averaged = mean(total, self.denominator, self.spec.ring.fraction_bits)
        constants = Constants(self.spec.server_optimizer.learning_rate)
        return sgd.step(averaged, np.empty((averaged.size, 0)), constants)

    def read_state(self, span: Span, part: memoryview) -> None:
        """What the step before left of a span, in float32; nothing before the first step."""
        if self.to is None or self.to.state is None:
            part[:] = bytes(len(part))
        else:
            self.files.fill(len(self.weights) + 1, self.state_start + 4 * span.position, part)

    def check_state(self, path: Path) -> None:
        """Raises CorruptStore unless the file is what the step before left."""
        held = memoryview(bytearray(self.state_start))
        self.files.fill(len(self.weights) + 1, 0, held)
        if held != state_header(self.spec, Step(self.step - 1)):
            raise CorruptStore(f"{path} is not what the step before left", "restore the blob from another copy")


class Files:
    """The files of a round, read with `pread` from any thread; mapped pages would count as memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._open: list[int] = []

    def __enter__(self) -> "Files":
        try:
            for path in self.paths:
                descriptor = _open(path)
                if len(self._open) < KEPT_OPEN:
                    self._open.append(descriptor)
                else:
                    os.close(descriptor)
        except CorruptStore:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._open:
            os.close(descriptor)

    def fill(self, index: int, offset: int, part: memoryview) -> int:
        """Read exactly `part` from file number `index`. Raises CorruptStore where the file ends before."""
        if index < len(self._open):
            read = os.preadv(self._open[index], [part], offset)
        else:
            descriptor = _open(self.paths[index])
            try:
                read = os.preadv(descriptor, [part], offset)
            finally:
                os.close(descriptor)
        if read != len(part):
            raise CorruptStore(f"{self.paths[index]} is shorter than it was", "restore the blob from another copy")
        return read

    def source(self, index: int) -> ReadInto:
        """File number `index` as a source of blocks."""
        return lambda offset, part: self.fill(index, offset, part)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CorruptStore(f"{path} cannot be read", "restore the blob from another copy") from error
