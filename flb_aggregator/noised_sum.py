# SPDX-License-Identifier: Apache-2.0
"""Central privacy in the aggregator's path: clip every update exactly, add up, add noise, all in the ring's integers.

The noised sum is a blob that the record names, and all that the step follows from: whoever has it gets the same adapter.
Clipping reads the updates again, whatever admission found. The noise is one stream, so this pass has one thread; memory
grows neither with the cohort nor with the adapter.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.admission import layout_of
from flb.delta import BLOCK, Int64, check_bound
from flb.errors import CorruptStore, NotFinite, ValueTooLarge
from flb.privacy import central
from flb.privacy.clip import Factor, clip_factor, ring_norm
from flb.privacy.discrete_gaussian import Noise
from flb.spec import RunSpec
from flb.types import Step
from flb.wire import container
from flb_aggregator.files import Files
from flb_aggregator.ring_blocks import RingBlocks

VERSION = "1"
ITEM = 8
"""Bytes of one value of the sum."""


def header(spec: RunSpec, step: Step) -> bytes:
    """The one legal header of a step's noised sum: an I64 entry for each tensor that the step sends, in units of 2^-F."""
    metadata = {"fraction_bits": str(spec.ring.fraction_bits), "step": str(step), "version": VERSION}
    return container.encode_header(layout_of(spec, step).tensors, "I64", metadata)


class ClippedUpdates:
    """The updates of a round as ring integers, each clipped to `clip_norm`. Update number 0 of `files` is the first.

    An update that holds what admission lets nobody send (NaN, infinity, a value beyond the bound) counts as zeros, and is
    one that was not clipped. `unclipped` is private until noise was added to it.
    """

    def __init__(self, spec: RunSpec, step: Step, files: Files, clip_norm: float) -> None:
        self._spec, self._layout = spec, layout_of(spec, step)
        self._blocks = RingBlocks(files, self._layout, spec.ring.fraction_bits, BLOCK)
        self._bound = float(spec.ring.value_bound << spec.ring.fraction_bits)
        norm = ring_norm(clip_norm, spec.ring.fraction_bits)
        self._factors = [self._factor(number, norm) for number in range(len(files.paths))]
        self.unclipped = sum(factor is None or factor.numerator == 1 << factor.shift for factor in self._factors)

    def _factor(self, update: int, norm: int) -> Factor | None:
        try:
            return clip_factor(lambda: self._walk(update), norm)
        except (NotFinite, ValueTooLarge):
            return None

    def _walk(self, update: int) -> Iterator[Int64]:
        for number, tensor in enumerate(self._layout.tensors):
            for start in range(0, tensor.size, BLOCK):
                yield self._values(update, number, start, min(BLOCK, tensor.size - start))

    def _values(self, update: int, tensor: int, start: int, count: int) -> Int64:
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
            values = self._blocks.values(update, tensor, start, count)
        check_bound(values, self._bound, self._layout.tensors[tensor].name)
        return values.astype(np.int64)

    def add(self, tensor: int, start: int, total: Int64) -> None:
        """Add elements `start` on of tensor number `tensor`, of all updates, to `total`, at most `BLOCK`."""
        for update, factor in enumerate(self._factors):
            if factor is not None:
                values = self._values(update, tensor, start, total.size)
                factor.apply(values)
                total += values


def write(
    spec: RunSpec, step: Step, clip_norm: float, paths: list[Path], key: bytes, out: Callable[[Any], None]
) -> int:
    """Write the noised sum of the updates at `paths`; returns how many were within the clip norm, which is private.

    Raises CorruptStore for an update that is shorter than it was, Refused for noise that does not fit the ring.
    """
    noise = Noise(central.sigma(spec.privacy, spec.ring, clip_norm), key)
    with Files(paths) as files:
        updates, total = ClippedUpdates(spec, step, files, clip_norm), np.empty(BLOCK, dtype=np.int64)
        out(header(spec, step))
        for number, tensor in enumerate(layout_of(spec, step).tensors):
            for start in range(0, tensor.size, BLOCK):
                part = total[: min(BLOCK, tensor.size - start)]
                part.fill(0)
                updates.add(number, start, part)
                noise.add(part)
                out(part.astype("<i8", copy=False).data.cast("B"))
        return updates.unclipped


class NoisedSum:
    """Number 1 of `files`, read back: what a central step is made of. Raises CorruptStore for another file."""

    def __init__(self, spec: RunSpec, step: Step, files: Files) -> None:
        self._files = files
        expected = header(spec, step)
        self._start, held = len(expected), memoryview(bytearray(len(expected)))
        files.fill(1, 0, held)
        if held != expected:
            raise CorruptStore(
                f"{files.paths[1]} is no noised sum of step {step}", "restore the blob from another copy"
            )
        position, self._positions = 0, list[int]()
        for tensor in layout_of(spec, step).tensors:
            self._positions.append(position)
            position += tensor.size

    def reduce(self, tensor: int, start: int, total: NDArray[Any]) -> None:
        """Set a block of the total (int64), as `flb_aggregator.reduce` has it."""
        offset = self._start + ITEM * (self._positions[tensor] + start)
        read = np.empty(total.size, dtype="<i8")
        self._files.fill(1, offset, read.data.cast("B"))
        total[:] = read
