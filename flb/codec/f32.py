# SPDX-License-Identifier: Apache-2.0
"""Codec f32: IEEE binary32, little endian, as it is."""

import numpy as np

from flb.delta import Float32


def encode(values: Float32) -> bytes:
    """4 bytes an element."""
    return values.astype("<f4", copy=False).tobytes()


def decode(raw: memoryview) -> Float32:
    """A view of `raw`, no copy on little-endian machines."""
    return np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
