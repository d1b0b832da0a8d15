# SPDX-License-Identifier: Apache-2.0
"""Adapter 0 from a seed, without torch: B = 0, A uniform in ±1/√k (the bound of LoRA's usual Kaiming start).

A = (2u - 1)/√k with u = (64-bit little-endian word >> 11) · 2^-53 from AES-256-CTR under the key
SHA-256(seed as 8 bytes big endian ‖ tensor name), nonce and counter zero (docs/arithmetic.md 7).
"""

import hashlib
from collections.abc import Iterator

import numpy as np
from Crypto.Cipher import AES

from flb.delta import BLOCK, Float32
from flb.types import TensorSpec


def blocks(tensor: TensorSpec, seed: int) -> Iterator[Float32]:
    """The flat values of one tensor in blocks of at most `BLOCK` elements; A has shape (r, k), B (d, r)."""
    if tensor.name.endswith(".lora_B.weight"):
        for start in range(0, tensor.size, BLOCK):
            yield np.zeros(min(BLOCK, tensor.size - start), dtype=np.float32)
        return
    key = hashlib.sha256(seed.to_bytes(8, "big") + tensor.name.encode()).digest()
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    root = np.sqrt(np.float64(tensor.shape[1]))
    for start in range(0, tensor.size, BLOCK):
        words = np.frombuffer(cipher.encrypt(bytes(8 * min(BLOCK, tensor.size - start))), dtype="<u8")
        unit = (words >> np.uint64(11)).astype(np.float64) * np.float64(2.0**-53)
        yield ((2.0 * unit - 1.0) / root).astype(np.float32)
