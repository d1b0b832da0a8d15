# SPDX-License-Identifier: Apache-2.0
"""Discrete Gaussian noise for ring integers: whole stages of a small table, no float, no rejection.

X = Σ_{j<L} K^j · X_j with independent discrete Gaussians X_j of the same σ₀ in [128, 300) and K an integer in 8..32, so
σ² = σ₀² · Σ K^2j. The sum is not exactly a discrete Gaussian, but σ₀/K ≥ 4 puts it pointwise within 2^-440 of one
(docs/arithmetic.md 6). The discrete Gaussian itself: Canonne, Kamath, Steinke, arXiv 2004.00010.

A stage inverts the distribution function on 128 random bits. The first 16 decide nearly always; where a threshold falls
within them, 48 more are drawn, and where those tie, the last 64. Every stage has keys of its own: two stages that draw
from one key are not independent, and their sum shows it.
"""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.delta import BLOCK, Int64
from flb.errors import Refused
from flb.privacy.gaussian_table import DECIDED, FIRST_CODE, Table, make_table

LEAST_SIGMA, LARGEST_SIGMA = 4096, 1 << 48
"""In ring units. Below, the table would have to be another; above, a sum of noise would not fit its integers."""
LEAST_STAGE, LARGEST_STAGE = 128, 300
LEAST_BASE, LARGEST_BASE = 8, 32
KEY_BYTES = 32

Bytes = Callable[[int], memoryview]
"""The next so many bytes of a stream; valid until the next call."""


@dataclass(frozen=True, slots=True)
class Stages:
    """σ² = `variance` · Σ_{j<`count`} `base`^2j, exactly."""

    base: int
    count: int
    variance: Fraction


def stages_of(sigma: Fraction) -> Stages:
    """How noise of standard deviation `sigma`, in ring units, is put together: as few stages as do.

    Raises Refused below 4096 units and from 2^48 on.
    """
    if not LEAST_SIGMA <= sigma < LARGEST_SIGMA:
        way = "raise noise, clip norm or ring.fraction_bits" if sigma < LEAST_SIGMA else "lower the noise"
        raise Refused(
            f"noise of {float(sigma):g} ring units is outside {LEAST_SIGMA} to 2^{LARGEST_SIGMA.bit_length() - 1}", way
        )
    for count in range(2, 32):
        for base in range(LEAST_BASE, LARGEST_BASE + 1):
            variance = sigma * sigma / sum(base ** (2 * j) for j in range(count))
            if LEAST_STAGE**2 <= variance < LARGEST_STAGE**2:
                return Stages(base, count, variance)
    raise AssertionError("two stages reach 1032 to 9607 units, and every further one 8 to 32 times as far")


def aes_ctr(key: bytes) -> Bytes:
    """The stream of AES-128-CTR (FIPS 197, SP 800-38A) under 16 bytes of key, counter from zero."""
    # Here, not above: the library costs 12 MiB, and an aggregator without noise never draws.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    zeros, buffer = memoryview(bytes(2 * BLOCK)), bytearray(2 * BLOCK + 15)
    view = memoryview(buffer)

    def draw(count: int) -> memoryview:
        if count > len(zeros):  # further bits for the few: never so many in one block but by a freak
            return memoryview(encryptor.update(bytes(count)))
        encryptor.update_into(zeros[:count], buffer)
        return view[:count]

    return draw


def stage_key(key: bytes, stage: int, purpose: bytes) -> bytes:
    """The first 16 bytes of SHA-256("flb noise " ‖ purpose ‖ stage as one byte ‖ key)."""
    return hashlib.sha256(b"flb noise " + purpose + bytes([stage]) + key).digest()[:16]


class Stage:
    """One X_j: a table, and three streams of bits."""

    __slots__ = ("_index", "_last", "_more", "_table", "_words")

    def __init__(self, table: Table, words: Bytes, more: Bytes, last: Bytes) -> None:
        """`words` decides, `more` and `last` where it does not; each is a stream of its own, so that what is drawn does
        not depend on how the values are cut into blocks."""
        self._table, self._words, self._more, self._last = table, words, more, last
        self._index = np.empty(BLOCK, dtype=np.intp)

    def draw(self, count: int) -> NDArray[np.int16]:
        """The next so many values, at most `BLOCK`."""
        words = np.frombuffer(self._words(2 * count), dtype="<u2")
        index = self._index[:count]
        np.copyto(index, words)  # numpy would make the same copy, twice as slowly
        values = self._table.slots.take(index)
        (unsure,) = np.nonzero(values < DECIDED)
        if unsure.size:
            values[unsure] = self._resolve(values[unsure])
        return values

    def _resolve(self, codes: NDArray[np.int16]) -> NDArray[np.int16]:
        lows = np.frombuffer(self._more(8 * codes.size), dtype="<u8") >> np.uint64(16)
        values, ties = self._table.invert(codes, lows)
        for index in ties:
            head = int(self._table.words[codes[index] - FIRST_CODE]) | int(lows[index])
            values[index] = self._table.invert_exactly(head << 64 | int.from_bytes(self._last(8), "little"))
        return values


class Noise:
    """A stream of discrete Gaussian integers that follows from `sigma` (ring units) and a secret key of 32 bytes.

    The same key gives the same values, however they are cut into calls. A key is drawn at random, used for one update,
    and deleted. Raises Refused as `stages_of`.
    """

    __slots__ = ("_stages", "_sum", "stages")

    def __init__(self, sigma: Fraction, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("a noise key has 32 bytes")
        self.stages = stages_of(sigma)
        table = table_of(self.stages.variance)
        self._stages = [
            Stage(table, *(aes_ctr(stage_key(key, j, purpose)) for purpose in (b"words", b"more", b"last")))
            for j in range(self.stages.count)
        ]
        # what all stages add up to is below 16σ: half the bytes where that fits
        self._sum: NDArray[np.signedinteger[Any]] = np.empty(BLOCK, dtype=np.int32 if sigma < 1 << 27 else np.int64)

    def add(self, values: Int64) -> None:
        """Add noise to flat ring values in place. What comes out is below 2^63 for |q| < 2^62."""
        for start in range(0, values.size, BLOCK):
            block = values[start : start + BLOCK]
            total = self._sum[: block.size]
            np.copyto(total, self._stages[-1].draw(block.size))
            for stage in reversed(self._stages[:-1]):  # Horner's rule, from K^(L-1) down
                total *= total.dtype.type(self.stages.base)
                total += stage.draw(block.size)
            block += total


@lru_cache(maxsize=4)
def table_of(variance: Fraction) -> Table:
    """The table of one stage; making it takes some hundredths of a second."""
    return make_table(variance)


def standard_deviation(noise_multiplier: float, clip_norm: float, fraction_bits: int) -> Fraction:
    """σ in ring units, exactly: noise multiplier times clip norm times 2^F. Raises Refused for what is no number."""
    if not all(0 < number < math.inf for number in (noise_multiplier, clip_norm)):
        raise Refused(
            f"noise multiplier {noise_multiplier} or clip norm {clip_norm} is no number above 0", "correct it"
        )
    return Fraction(noise_multiplier) * Fraction(clip_norm) * (1 << fraction_bits)
