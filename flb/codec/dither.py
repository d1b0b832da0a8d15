# SPDX-License-Identifier: Apache-2.0
"""The random numbers of codecs that round up or down by chance: a public stream for each update.

A stream follows from run, step and node, so an update that is sealed again after a crash has the same bytes, on every
machine (docs/arithmetic.md 3). AES-256 in counter mode (FIPS 197, SP 800-38A), counter from zero.
"""

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flb.delta import BLOCK
from flb.types import Address, Step

UInt16 = NDArray[np.uint16]
Draw = Callable[[int], UInt16]
"""The next so many numbers of the stream, at most `BLOCK`; the array is valid until the next call."""

CIPHER_BLOCK = 16


def key_of(run: Address, step: Step, node: Address, purpose: bytes = b"codec") -> bytes:
    """Key of an update's stream, 32 bytes: SHA-256(run ‖ step, 4 bytes big endian ‖ node ‖ "codec")."""
    return hashlib.sha256(run + step.to_bytes(4, "big") + node + purpose).digest()


def stream(key: bytes, start: int = 0) -> Draw:
    """The stream under a key from word number `start` on: little-endian 16-bit words of AES-256-CTR."""
    # Here, not above: the library costs 12 MiB, and an aggregator draws only where the step travels encoded.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    counter, skipped = divmod(2 * start, CIPHER_BLOCK)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(counter.to_bytes(CIPHER_BLOCK, "big"))).encryptor()
    encryptor.update(bytes(skipped))
    zeros, buffer = memoryview(bytes(2 * BLOCK)), bytearray(2 * BLOCK + CIPHER_BLOCK - 1)
    words = np.frombuffer(buffer, dtype="<u2", count=BLOCK)

    def draw(count: int) -> UInt16:
        encryptor.update_into(zeros[: 2 * count], buffer)
        return words[:count].astype(np.uint16, copy=False)

    return draw
