# SPDX-License-Identifier: Apache-2.0
"""The adapter in pieces: what one thread combines before it hands the result over, and the result."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flb.delta import BLOCK
from flb.types import TensorSpec

PIECE = 2 * BLOCK
"""Elements of each update that are read and added at a time. Blocks of `BLOCK` stay in the second-level cache, but are
done so soon that two threads spend their time on the interpreter's lock."""

SPAN = 4 * PIECE
"""Elements that one thread combines before it hands them over: 1 MiB of the adapter."""

NOTHING = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Span:
    """Elements `start` to `start + count` of one tensor, and the first one's number in the whole adapter."""

    tensor: TensorSpec
    start: int
    count: int
    position: int

    @property
    def last(self) -> bool:
        """Whether the tensor ends with it."""
        return self.start + self.count == self.tensor.size


class Made(NamedTuple):
    """Bytes that one span came to, valid until its thread's next one: of the adapter; where the step travels encoded
    also of the remainder and, in a tensor that the step sends, of the step's integers and scales; of the server
    optimizer's moments where it keeps some."""

    span: Span
    adapter: memoryview
    remainder: memoryview = NOTHING
    whole: memoryview = NOTHING
    scales: memoryview = NOTHING
    moments: memoryview = NOTHING


def spans(tensors: Sequence[TensorSpec]) -> Iterator[Span]:
    """The adapter in pieces of at most `SPAN` elements, in file order."""
    position = 0
    for tensor in tensors:
        for start in range(0, tensor.size, SPAN):
            count = min(SPAN, tensor.size - start)
            yield Span(tensor, start, count, position + start)
        position += tensor.size
