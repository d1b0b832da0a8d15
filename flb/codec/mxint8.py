# SPDX-License-Identifier: Apache-2.0
"""Codec mxint8: x = m · 2^(E - 133), m in -127..127, one byte E for 32 elements; a quarter of f32's bytes."""

from collections.abc import Sequence

import numpy as np

from flb.capabilities import CodecCapabilities
from flb.codec.dither import Draw
from flb.codec.microscaling import GROUP, Grid
from flb.delta import BLOCK, Float32

CAPABILITIES = CodecCapabilities(lossless=False, unbiased=True)

GRID = Grid(limit=127, unit=133)


def encode(values: Float32, draw: Draw) -> tuple[memoryview, memoryview]:
    """m as one signed byte an element, and the E bytes; one number is drawn for each element."""
    whole = np.empty(values.size, dtype=np.int8)
    exponents = np.empty(-(-values.size // GROUP), dtype=np.uint8)
    for number, (block, scales) in enumerate(GRID.encode(values.reshape(-1), draw)):
        whole[number * BLOCK :][: block.size] = block
        exponents[number * BLOCK // GROUP :][: scales.size] = scales
    return whole.data.cast("B"), exponents.data


def decode(raw: Sequence[memoryview], out: Float32) -> Float32:
    """Exact. Raises BadContainer for E = 255, m = -128, and E other than 0 in a block of zeros."""
    return GRID.decode(np.frombuffer(raw[0], dtype=np.int8), np.frombuffer(raw[1], dtype=np.uint8), out)
