# SPDX-License-Identifier: Apache-2.0
"""The updates of a round as integers of the ring, block by block: what every rule and every mode reads."""

from flb.admission import BlockReader, Layout
from flb.delta import BLOCK, Float32, round_to_ring
from flb.errors import BadContainer, CorruptStore
from flb_aggregator.files import Files


class RingBlocks:
    """Reads blocks of at most `size` elements into buffers that it reuses; one for each thread."""

    def __init__(self, files: Files, layout: Layout, fraction_bits: int, size: int = BLOCK) -> None:
        self._files, self._fraction_bits = files, fraction_bits
        self._reader = BlockReader(layout, size)

    def values(self, update: int, tensor: int, start: int, count: int) -> Float32:
        """q of elements `start` (a multiple of 64) to `start + count` of tensor number `tensor`, exact in float32: the
        caller's scratch until the next call. `update` counts from 1. Raises CorruptStore for a file that changed."""
        try:
            values = self._reader.values(self._files.source(update), tensor, start, count)
        except BadContainer as error:
            raise altered(self._files, update) from error
        round_to_ring(values, self._fraction_bits, out=values)
        return values


def altered(files: Files, update: int) -> CorruptStore:
    """The error for an update that is not what was admitted."""
    return CorruptStore(
        f"{files.paths[update]} was altered since it was admitted", "restore the blob from another copy"
    )
