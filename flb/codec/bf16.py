# SPDX-License-Identifier: Apache-2.0
"""Codec bf16: the upper half of binary32, rounded half to even; decoding is exact."""

from collections.abc import Sequence

import numpy as np
from ml_dtypes import bfloat16

from flb.capabilities import CodecCapabilities
from flb.codec.dither import Draw
from flb.delta import Float32

CAPABILITIES = CodecCapabilities(lossless=False, unbiased=False)


def encode(values: Float32, draw: Draw) -> tuple[bytes]:
    """2 bytes an element, little endian; nothing is drawn."""
    return (values.astype(bfloat16).view(np.uint16).astype("<u2", copy=False).tobytes(),)


def decode(raw: Sequence[memoryview], out: Float32) -> Float32:
    """Shift into binary32; every bfloat16 is one."""
    bits = out.view(np.uint32)
    np.copyto(bits, np.frombuffer(raw[0], dtype="<u2"))
    np.left_shift(bits, np.uint32(16), out=bits)
    return out
