# SPDX-License-Identifier: Apache-2.0
"""Codecs as tests use them, and the microscaling codecs again: slowly, one element at a time, in exact fractions."""

import hashlib
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from Crypto.Cipher import AES

from flb.codec import CODINGS, Raw, dither
from flb.types import Address, Codec, Step

RUN, NODE, STEP = Address(b"\x11" * 20), Address(b"\x22" * 20), Step(7)
KEY = dither.key_of(RUN, STEP, NODE)
LIMITS = {Codec.MXINT8: (127, 133), Codec.MXINT4: (7, 129)}


def draw(key: bytes = KEY) -> dither.Draw:
    """The stream of a fixed update."""
    return dither.stream(key)


def encoded(codec: Codec, values: np.ndarray, key: bytes = KEY) -> tuple[Raw, ...]:
    """The bytes of each part."""
    return CODINGS[codec].encode(values, draw(key))


def decoded(codec: Codec, raw: Sequence[Raw], size: int) -> np.ndarray:
    """The values of a whole tensor."""
    return CODINGS[codec].decode([memoryview(part) for part in raw], np.empty(size, dtype=np.float32)).copy()


def slow_dither(count: int, run: bytes = RUN, step: int = STEP, node: bytes = NODE) -> list[Fraction]:
    """u of each element, by another AES."""
    key = hashlib.sha256(run + step.to_bytes(4, "big") + node + b"codec").digest()
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(2 * count))
    numbers = [int.from_bytes(stream[2 * i : 2 * i + 2], "little") for i in range(count)]
    return [Fraction(2 * k + 1, 2**17) for k in numbers]


def nearest_float32(value: Fraction) -> Fraction:
    """Rounded to 24 significant bits, half to even; never below 2^-149."""
    if value == 0:
        return value
    exponent = math.floor(math.log2(abs(value))) - 25
    while abs(value) >= Fraction(2) ** (exponent + 24):
        exponent += 1
    unit = Fraction(2) ** max(exponent, -149)
    return round(value / unit) * unit


def slow_exponent(values: Sequence[Fraction], limit: int, unit: int) -> int:
    """The least E that holds all values."""
    return next(e for e in range(255) if max(map(abs, values)) <= limit * Fraction(2) ** (e - unit))


def slow_encode(codec: Codec, values: np.ndarray) -> tuple[list[int], list[int]]:
    """m of each element and E of each group, by the definition of docs/arithmetic.md 3."""
    limit, unit = LIMITS[codec]
    exact = [Fraction(float(x)) for x in values]
    random = slow_dither(len(exact))
    integers, exponents = [], []
    for start in range(0, len(exact), 32):
        group = exact[start : start + 32]
        exponents.append(slow_exponent(group, limit, unit))
        for x, u in zip(group, random[start : start + 32], strict=True):
            scaled = nearest_float32(x * Fraction(2) ** (unit - exponents[-1]))
            integers.append(math.floor(nearest_float32(scaled + u)))
    return integers, exponents


def slow_pack(codec: Codec, integers: Sequence[int]) -> bytes:
    """m as bytes in two's complement, or as nibbles, the low half first."""
    if codec is Codec.MXINT8:
        return bytes(m % 256 for m in integers)
    nibbles = [m % 16 for m in integers] + [0] * (len(integers) % 2)
    return bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
