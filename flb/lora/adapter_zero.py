# SPDX-License-Identifier: Apache-2.0
"""Adapter 0 from a seed, without torch: B = 0, A uniform in ±1/√k (the bound of LoRA's usual Kaiming start).

A = (2u - 1)/√k with u = (64-bit little-endian word >> 11) · 2^-53 from AES-256-CTR under the key
SHA-256(seed as 8 bytes big endian ‖ tensor name), nonce and counter zero (docs/arithmetic.md 7). A mode that begins
anew in every step has its number, as 4 bytes big endian, between the two. Since A is written row by row, a smaller
rank has the first rows of a larger one.
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from Crypto.Cipher import AES

from flb.delta import BLOCK, Float32
from flb.types import TensorSpec


def blocks(tensor: TensorSpec, seed: int, step: int = 0) -> Iterator[Float32]:
    """The flat values of one tensor in blocks of at most `BLOCK` elements; A has shape (r, k), B (d, r). `step` is that of
    a fresh start, 0 for adapter 0."""
    for start in range(0, tensor.size, BLOCK):
        yield values(tensor, seed, step, start, min(BLOCK, tensor.size - start))


def values(tensor: TensorSpec, seed: int, step: int, start: int, count: int) -> Float32:
    """Elements `start` (even) to `start + count` of one tensor, flat."""
    if tensor.name.endswith(".lora_B.weight"):
        return np.zeros(count, dtype=np.float32)
    begun = step.to_bytes(4, "big") if step else b""
    key = hashlib.sha256(seed.to_bytes(8, "big") + begun + tensor.name.encode()).digest()
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=start // 2)  # two words a block of AES
    words = np.frombuffer(cipher.encrypt(bytes(8 * count)), dtype="<u8")
    unit = (words >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)
    root = np.sqrt(np.float64(tensor.shape[1]))
    drawn: Float32 = ((2.0 * unit - 1.0) / root).astype(np.float32)
    return drawn
