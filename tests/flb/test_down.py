# SPDX-License-Identifier: Apache-2.0
"""The encoded step: against a scalar reference in exact fractions, and nothing is lost over many steps."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from Crypto.Cipher import AES

from flb import down
from flb.types import Address, Digest, Step
from flb.wire import container
from tests.coded import nearest_float32, slow_exponent
from tests.sim import TENSORS, small_spec

pytestmark = pytest.mark.unit

RUN = Address(b"\x11" * 20)


def dither_of(step: int, start: int, count: int) -> list[Fraction]:
    """u of elements `start` on, by another AES and from the definition of the key."""
    key = hashlib.sha256(RUN + step.to_bytes(4, "big") + bytes(20) + b"down").digest()
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(2 * (start + count)))[2 * start :]
    return [Fraction(2 * int.from_bytes(stream[2 * i : 2 * i + 2], "little") + 1, 2**17) for i in range(count)]


def slow(step: np.ndarray, remainder: np.ndarray, random: list[Fraction]) -> tuple[list[Fraction], list[Fraction]]:
    """Decoded values and remainders, one element at a time."""
    values, left = [], []
    for start in range(0, step.size, 32):
        # the sum of two floats in Python is float64's own, rounded once
        y = [Fraction(float(a) + float(b)) for a, b in zip(step[start:][:32], remainder[start:][:32], strict=True)]
        x = [nearest_float32(value) for value in y]
        exponent = slow_exponent(x, 127, 133)
        for exact, value, u in zip(y, x, random[start:], strict=False):
            scaled = nearest_float32(value * Fraction(2) ** (133 - exponent))
            decoded = math.floor(nearest_float32(scaled + u)) * Fraction(2) ** (exponent - 133)
            values.append(decoded)
            left.append(nearest_float32(Fraction(float(exact) - float(decoded))))
    return values, left


@pytest.mark.parametrize(("start", "count"), [(0, 100), (5, 64), (12_345, 33)])
def test_encode__any_place_in_the_step__is_the_scalar_definition(start: int, count: int) -> None:
    random = np.random.default_rng(start)
    step = random.standard_normal(count) * 1e-3
    step[:4] = [0.0, -0.0, 2.0**-140, 4.0]
    remainder = (random.standard_normal(count) * 1e-5).astype(np.float32)
    encoded = down.encode(step, remainder, down.draw_from(RUN, Step(3), start))
    values, left = slow(step, remainder, dither_of(3, start, count))
    assert [Fraction(float(value)) for value in encoded.values] == values
    assert [Fraction(float(value)) for value in encoded.remainder] == left


def test_encode__many_steps__lose_nothing_but_the_last_remainder() -> None:
    random = np.random.default_rng(1)
    remainder, wanted, moved = np.zeros(640, np.float32), np.zeros(640), np.zeros(640)
    for number in range(1, 201):
        step = random.standard_normal(640) * 1e-3 * np.repeat(2.0 ** -np.arange(20), 32)
        encoded = down.encode(step, remainder, down.draw_from(RUN, Step(number), 0))
        remainder = encoded.remainder
        wanted += step
        moved += encoded.values
    unit = np.ldexp(1.0, np.asarray(encoded.parts[1], dtype=np.int64) - 133).repeat(32)
    assert np.all(np.abs(wanted - moved) <= unit), "within one unit of the last step"
    assert np.any(np.abs(wanted - moved) > unit / 8), "which is not nothing"
    assert np.allclose(wanted - moved, remainder, rtol=0, atol=1e-9)


def test_encode__steps_below_half_a_unit__are_not_erased() -> None:
    """One large value sets the scale; small ones beside it still arrive on average."""
    step = np.full(32, 1e-4)
    step[0] = 1.0
    remainder, moved = np.zeros(32, np.float32), np.zeros(32)
    for number in range(1, 401):
        encoded = down.encode(step, remainder, down.draw_from(RUN, Step(number), 0))
        remainder = encoded.remainder
        moved += encoded.values
    assert np.all(np.abs(moved - 400 * step) <= 2.0**-6)


def test_step_layout__alternate__holds_what_the_step_sends() -> None:
    base = Digest(b"\xab" * 32)
    spec = small_spec("alternate", down="mxint8")
    header = down.step_header(spec, Step(1), base)
    read = container.decode_header(header[8:])
    name = TENSORS[1].name
    assert [(entry.name, entry.dtype) for entry in read.entries] == [(name, "I8"), (f"{name}.scale", "U8")]
    assert dict(read.metadata) == {"base": "0x" + "ab" * 32, "step": "1"}
    assert down.step_layout(spec, Step(1), base).size == len(header) + 16 + 1
    state = container.decode_header(down.state_header(spec, Step(1))[8:])
    assert [entry.name for entry in state.entries] == [tensor.name for tensor in TENSORS]
    assert dict(state.metadata) == {"step": "1"}
