# SPDX-License-Identifier: Apache-2.0
"""The aggregator's path, top to bottom: admitted updates → reweigh → reduce → optimizer → finish.

A pure function of a round's inputs and their bytes: whoever has the blobs gets the same adapter, and `flb verify`
calls exactly this. Updates are walked in blocks, in node order, with buffers that are reused; memory grows neither
with the cohort nor with the adapter.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.admission import layout_of
from flb.aggregation.mean import weighted_sum
from flb.codec import CODINGS
from flb.delta import BLOCK, Float32, Int64, add_step, mean, to_ring
from flb.errors import CorruptStore
from flb.server_optimizer import sgd
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container

ADAPTER_METADATA = {"format": "pt"}
"""What readers of PEFT adapters expect."""


@dataclass(frozen=True, slots=True)
class Input:
    """One admitted update: its weight, and where its bytes are."""

    weight: int
    path: Path


def combine(
    spec: RunSpec, step: Step, base: Path, inputs: Sequence[Input], write: Callable[[bytes | memoryview], None]
) -> None:
    """Write the adapter that `step` makes from `base` and `inputs` (in order of node address).

    Raises CorruptStore where a blob that was checked before is shorter now.
    """
    header = container.encode_header(spec.tensors, "F32", ADAPTER_METADATA)
    write(header)
    updates = Updates(spec, step, inputs)
    adapter = Reader(base, len(header))
    try:
        for tensor in spec.tensors:
            for count in block_sizes(tensor):
                before = adapter.floats(count)
                after = updates.apply(tensor, before, count)
                write(after.data.cast("B"))
    finally:
        updates.close()
        adapter.close()


class Updates:
    """The open updates of a round, walked together; one block of each is in memory at a time."""

    def __init__(self, spec: RunSpec, step: Step, inputs: Sequence[Input]) -> None:
        layout = layout_of(spec, step)
        self.spec, self.sent = spec, {tensor.name for tensor in layout.tensors}
        self.coding = CODINGS[spec.wire_codec]
        self.denominator = sum(item.weight for item in inputs)
        self.readers = [(item.weight, Reader(item.path, layout.header_size)) for item in inputs]
        self._ring, self._total = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)

    def apply(self, tensor: TensorSpec, before: Float32, count: int) -> NDArray[Any]:
        """The next `count` elements of the new adapter, little-endian float32."""
        if tensor.name not in self.sent:
            return before
        bits = self.spec.ring.fraction_bits
        total = weighted_sum(self.blocks(count), self._total[:count])
        averaged = mean(total, self.denominator, bits)
        stepped = sgd.step(averaged, self.spec.server_optimizer.learning_rate)
        return add_step(before, stepped).astype("<f4", copy=False)

    def blocks(self, count: int) -> Iterator[tuple[int, Int64]]:
        """Weight and ring values of each update's next block; the buffer is shared."""
        for weight, reader in self.readers:
            values = self.coding.decode(reader.take(count * self.coding.item_size))
            yield weight, to_ring(values, self.spec.ring.fraction_bits, self._ring[:count])

    def close(self) -> None:
        """Close every file."""
        for _, reader in self.readers:
            reader.close()


class Reader:
    """Reads a file from `offset` on with `pread` into one buffer; mapped pages would count as memory."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path, self._offset = path, offset
        self._buffer = memoryview(bytearray(BLOCK * 4))
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise CorruptStore(f"{path} cannot be read", "restore the blob from another copy") from error

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, valid until the next call."""
        part = self._buffer[:size]
        if os.preadv(self._descriptor, [part], self._offset) != size:
            raise CorruptStore(f"{self._path} is shorter than it was", "restore the blob from another copy")
        self._offset += size
        return part

    def floats(self, count: int) -> Float32:
        """The next `count` little-endian float32 values."""
        return np.frombuffer(self.take(4 * count), dtype="<f4")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def block_sizes(tensor: TensorSpec) -> Iterator[int]:
    """Elements of each block of a tensor."""
    for start in range(0, tensor.size, BLOCK):
        yield min(BLOCK, tensor.size - start)
