# SPDX-License-Identifier: Apache-2.0
"""Codec mxint4: x = m · 2^(E - 129), m in -7..7, one byte E for 32 elements; an eighth of f32's bytes.

Not a format of OCP. Element 2i is the low half of byte i, in two's complement.
"""

from collections.abc import Sequence

import numpy as np

from flb.capabilities import CodecCapabilities
from flb.codec.dither import Draw
from flb.codec.microscaling import GROUP, REMEDY, Grid
from flb.delta import BLOCK, Float32
from flb.errors import BadContainer

CAPABILITIES = CodecCapabilities(lossless=False, unbiased=True)

GRID = Grid(limit=7, unit=129)

_SIGNED = (np.arange(16, dtype=np.int8) ^ np.int8(8)) - np.int8(8)
_PAIRS = np.stack([np.tile(_SIGNED, 16), np.repeat(_SIGNED, 16)], axis=1).view(np.uint16).reshape(256)
"""The two integers of each byte, as adjacent bytes."""


def encode(values: Float32, draw: Draw) -> tuple[memoryview, memoryview]:
    """m as two elements a byte, and the E bytes; one number is drawn for each element."""
    packed = np.empty(-(-values.size // 2), dtype=np.uint8)
    exponents = np.empty(-(-values.size // GROUP), dtype=np.uint8)
    for number, (block, scales) in enumerate(GRID.encode(values.reshape(-1), draw)):
        nibbles = block.view(np.uint8) & np.uint8(15)
        target = packed[number * BLOCK // 2 :][: -(-block.size // 2)]
        target[:] = nibbles[::2]
        target[: block.size // 2] |= nibbles[1::2] << np.uint8(4)
        exponents[number * BLOCK // GROUP :][: scales.size] = scales
    return packed.data, exponents.data


def decode(raw: Sequence[memoryview], out: Float32) -> Float32:
    """Exact. Raises BadContainer for E = 255, m = -8, E other than 0 in a block of zeros, and a padding that is set."""
    packed = np.frombuffer(raw[0], dtype=np.uint8)
    if out.size % 2 and packed[-1] >> 4:
        raise BadContainer("the unused half of a last byte in the update is not 0", REMEDY)
    whole = np.take(_PAIRS, packed, mode="clip").view(np.int8)[: out.size]  # clip: no index needs to be checked
    return GRID.decode(whole, np.frombuffer(raw[1], dtype=np.uint8), out)
