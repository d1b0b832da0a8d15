# SPDX-License-Identifier: Apache-2.0
"""The gap of a large round by a random projection: one node's factors at a time, in memory that no cohort grows.

For a matrix M and a matrix Ω of l columns of random signs the mean of ‖MΩ‖²/l is ‖M‖² (Achlioptas, "Database-friendly
random projections", 2003). Its relative deviation is at most √(2/l) for one module, and shrinks with rank and number
of modules, over which squares are added up. It serves reports, which need two digits.
"""

import hashlib

import numpy as np
from Crypto.Cipher import AES

from flb.delta import Float32, Float64
from flb.lora.gap import Gap

COLUMNS = 8
"""l."""


def signs_of(k: int) -> Float32:
    """Ω (k, l), the same on every machine, so that who verifies reports the same figure."""
    cipher = AES.new(hashlib.sha256(b"gap").digest(), AES.MODE_CTR, nonce=b"", initial_value=0)
    drawn = np.frombuffer(cipher.encrypt(bytes(k * COLUMNS)), dtype=np.uint8)
    signs: Float32 = np.where(drawn & 1, np.float32(1), np.float32(-1)).reshape(k, COLUMNS)
    return signs


class Sketch:
    """One module's: what the mean of the products moves, and what the mean of each factor moves, both times Ω."""

    def __init__(self, b: Float32, a: Float32, signs: Float32) -> None:
        """B (d, r) and A (r, k) of the adapter before, Ω (k, l)."""
        self._b, self._a, self._signs = b.astype(np.float64), a.astype(np.float64), signs.astype(np.float64)
        self._mean_b, self._mean_a = np.zeros(b.shape), np.zeros(a.shape)
        self._products = np.zeros((b.shape[0], signs.shape[1]))

    def add(self, share: float, db: Float32, da: Float32) -> None:
        """A node with its share pᵢ and its deviations dBᵢ (d, r), dAᵢ (r, k)."""
        wide_b, wide_a = db.astype(np.float64), da.astype(np.float64)
        self._products += wide_b @ (share * (wide_a @ self._signs))
        wide_b *= share
        wide_a *= share
        self._mean_b += wide_b
        self._mean_a += wide_a

    @property
    def gap(self) -> Gap:
        """The estimate; nothing is cut."""
        mean_a, a = self._mean_a @ self._signs, self._a @ self._signs
        missed = self._products - self._mean_b @ mean_a
        moved = self._products + self._b @ mean_a + self._mean_b @ a
        return Gap(_square(missed), _square(moved))


def _square(sketched: Float64) -> float:
    """‖MΩ‖²/l."""
    return float((sketched * sketched).sum()) / int(sketched.shape[1])
