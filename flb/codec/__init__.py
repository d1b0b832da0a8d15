# SPDX-License-Identifier: Apache-2.0
"""How values of an update are written: every codec of `flb.types.Codec`, encode and decode side by side."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flb.codec import bf16, f32, mxint4, mxint8
from flb.codec.dither import Draw
from flb.delta import Float32
from flb.types import Codec, TensorSpec

Raw = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Part:
    """One safetensors entry of a coded tensor: its name after the tensor's, type, bytes an item, elements an item."""

    suffix: str
    dtype: str
    item_size: int
    elements: int = 1

    def items(self, elements: int) -> int:
        """How many items hold so many elements; the last one may be part empty."""
        return -(-elements // self.elements)

    def shape(self, tensor: TensorSpec) -> tuple[int, ...]:
        """Shape of the entry: the tensor's own where an item is an element, else flat."""
        return tensor.shape if self.elements == 1 else (self.items(tensor.size),)


@dataclass(frozen=True, slots=True)
class Coding:
    """One codec: the entries it makes of a tensor, and both directions.

    `encode(values, draw)` takes the flat float32 values of a whole tensor, each at most 2^126 in size, and returns
    the bytes of every part; `draw` gives dither to codecs that round at random. `decode(raw, out)` takes the bytes
    of every part for `out.size` elements from an element on whose number is a multiple of 32, and returns their
    values, exact, in `out` or in a view of `raw`. Decode raises BadContainer for bytes that no encoder writes.
    """

    parts: tuple[Part, ...]
    encode: Callable[[Float32, Draw], tuple[Raw, ...]]
    decode: Callable[[Sequence[memoryview], Float32], Float32]


CODINGS: dict[Codec, Coding] = {
    Codec.F32: Coding((Part("", "F32", 4),), f32.encode, f32.decode),
    Codec.BF16: Coding((Part("", "BF16", 2),), bf16.encode, bf16.decode),
    Codec.MXINT8: Coding((Part("", "I8", 1), Part(".scale", "U8", 1, 32)), mxint8.encode, mxint8.decode),
    Codec.MXINT4: Coding((Part("", "U8", 1, 2), Part(".scale", "U8", 1, 32)), mxint4.encode, mxint4.decode),
}
assert set(CODINGS) == set(Codec), "every codec that may be signed has a coding"
