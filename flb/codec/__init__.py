# SPDX-License-Identifier: Apache-2.0
"""How values of an update are written: every codec of `flb.types.Codec`, encode and decode side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from flb.codec import bf16, f32
from flb.delta import Float32
from flb.types import Codec


@dataclass(frozen=True, slots=True)
class Coding:
    """One codec: its safetensors dtype, bytes an element, and both directions.

    `encode(values) -> bytes-like`, `decode(raw) -> float array`; decoding is exact.
    """

    dtype: str
    item_size: int
    encode: Callable[[Float32], bytes]
    decode: Callable[[memoryview], NDArray[Any]]


CODINGS: dict[Codec, Coding] = {
    Codec.F32: Coding("F32", 4, f32.encode, f32.decode),
    Codec.BF16: Coding("BF16", 2, bf16.encode, bf16.decode),
}
assert set(CODINGS) == set(Codec), "every codec that may be signed has a coding"
