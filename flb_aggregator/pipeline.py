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
from flb.delta import BLOCK, Float32, add_step, exact_in_float64, mean, round_to_ring
from flb.errors import BadContainer, CorruptStore
from flb.server_optimizer import sgd
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.in_order import in_order

ADAPTER_METADATA = {"format": "pt"}
"""What readers of PEFT adapters expect."""

PIECE = 2 * BLOCK
"""Elements of each update that are read and added at a time. Blocks of `BLOCK` stay in the second-level cache, but are
done so soon that two threads spend their time on the interpreter's lock."""

SPAN = 4 * PIECE
"""Elements that one thread combines before it hands them over: 1 MiB of the adapter."""

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
    write: Callable[[bytes | memoryview], None],
    threads: int | None = None,
) -> None:
    """Write the adapter that `step` makes from `base` and `inputs` (in order of node address).

    `write` gets the bytes in order, one call at a time, from several threads: `threads`, or one for each core, at
    most two. Raises CorruptStore where a blob that was checked before is shorter now.
    """
    header = container.encode_header(spec.tensors, "F32", ADAPTER_METADATA)
    write(header)
    with Files([base, *(item.path for item in inputs)]) as files:
        combined = Combiner(spec, step, [item.weight for item in inputs], files, len(header))
        in_order(list(spans(spec.tensors)), combined.worker, write, threads or min(2, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True)
class Span:
    """Elements `start` to `start + count` of one tensor, and the first one's number in the whole adapter."""

    tensor: TensorSpec
    start: int
    count: int
    position: int


def spans(tensors: Sequence[TensorSpec]) -> Iterator[Span]:
    """The adapter in pieces of at most `SPAN` elements, in file order."""
    position = 0
    for tensor in tensors:
        for start in range(0, tensor.size, SPAN):
            count = min(SPAN, tensor.size - start)
            yield Span(tensor, start, count, position + start)
        position += tensor.size


class Combiner:
    """What the threads of one `combine` share, all of it constant."""

    def __init__(self, spec: RunSpec, step: Step, weights: Sequence[int], files: "Files", adapter_start: int) -> None:
        self.spec, self.weights, self.files, self.adapter_start = spec, weights, files, adapter_start
        self.layout = layout_of(spec, step)
        self.numbers = {tensor.name: number for number, tensor in enumerate(self.layout.tensors)}
        self.denominator = sum(weights)
        narrow = exact_in_float64(self.denominator, spec.ring.value_bound, spec.ring.fraction_bits)
        self.sum_type: type[Any] = np.float64 if narrow else np.int64

    def worker(self) -> Callable[[Span], memoryview]:
        """A function that combines one span, with buffers of its own; the bytes are valid until its next call."""
        made = np.empty(SPAN, dtype="<f4")
        total, scaled = np.empty(PIECE, dtype=self.sum_type), np.empty(PIECE, dtype=self.sum_type)
        reader = BlockReader(self.layout, PIECE)

        def combine_span(span: Span) -> memoryview:
            after = made[: span.count]
            self.files.fill(0, self.adapter_start + 4 * span.position, after.data.cast("B"))
            if span.tensor.name in self.numbers:
                for start in range(0, span.count, PIECE):
                    block = after[start : start + PIECE]
                    first, count = span.start + start, block.size
                    weighted_sum(self.blocks(reader, span.tensor, first, scaled[:count]), total[:count])
                    block[:] = self.apply(block, total[:count])
            return after.data.cast("B")

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

    def apply(self, before: Float32, total: NDArray[Any]) -> Float32:
        """The new adapter's block from the old one's and Σ w·q."""
        averaged = mean(total, self.denominator, self.spec.ring.fraction_bits)
        stepped = sgd.step(averaged, self.spec.server_optimizer.learning_rate)
        return add_step(before, stepped)


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
