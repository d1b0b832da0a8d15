# SPDX-License-Identifier: Apache-2.0
"""Codec f32: IEEE binary32, little endian, as it is."""

from collections.abc import Sequence

import numpy as np

from flb.capabilities import CodecCapabilities
from flb.codec.dither import Draw
from flb.delta import Float32

CAPABILITIES = CodecCapabilities(lossless=True, unbiased=True)


def encode(values: Float32, draw: Draw) -> tuple[bytes]:
    """4 bytes an element; nothing is rounded, so nothing is drawn."""
    return (values.astype("<f4", copy=False).tobytes(),)


def decode(raw: Sequence[memoryview], out: Float32) -> Float32:
    """A view of `raw`, no copy on little-endian machines."""
    return np.frombuffer(raw[0], dtype="<f4").astype(np.float32, copy=False)
