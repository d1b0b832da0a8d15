# SPDX-License-Identifier: Apache-2.0
"""A seeded order that is the same on every machine and in every release of every library: ranks by SHA-256."""

import hashlib


def permutation(count: int, seed: int, domain: str = "") -> list[int]:
    """0 to count - 1 in the order of SHA-256(domain ‖ seed ‖ index), numbers as 8 bytes big endian.

    `seed` is 0 to 2^64 - 1; `domain` separates uses of one seed.
    """
    prefix = hashlib.sha256(b"flb order" + domain.encode() + b"\x00" + seed.to_bytes(8, "big"))

    def rank(index: int) -> bytes:
        hashed = prefix.copy()
        hashed.update(index.to_bytes(8, "big"))
        return hashed.digest()

    return sorted(range(count), key=rank)
