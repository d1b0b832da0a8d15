# SPDX-License-Identifier: Apache-2.0
"""Codec bf16: the upper half of binary32, rounded half to even; decoding is exact."""

import numpy as np
from ml_dtypes import bfloat16

from flb.delta import Float32


def encode(values: Float32) -> bytes:
    """2 bytes an element, little endian."""
    return values.astype(bfloat16).view(np.uint16).astype("<u2", copy=False).tobytes()


def decode(raw: memoryview) -> Float32:
    """Shift into binary32; every bfloat16 is one."""
    wide = np.frombuffer(raw, dtype="<u2").astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)
