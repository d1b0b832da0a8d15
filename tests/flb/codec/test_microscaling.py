# SPDX-License-Identifier: Apache-2.0
"""mxint8 and mxint4: the least scale, unbiased dither, and every refusal."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.codec import mxint4, mxint8
from flb.errors import BadContainer
from flb.types import Codec
from tests.coded import LIMITS, decoded, encoded, slow_encode, slow_exponent, slow_pack

pytestmark = pytest.mark.unit

MX = pytest.mark.parametrize("codec", [Codec.MXINT8, Codec.MXINT4])
GRIDS = {Codec.MXINT8: mxint8.GRID, Codec.MXINT4: mxint4.GRID}
LARGEST = 2.0**120
ANY = st.floats(min_value=-LARGEST, max_value=LARGEST, width=32)
TINY = st.floats(min_value=-(2.0**-120), max_value=2.0**-120, width=32)
USUAL = st.floats(min_value=-4, max_value=4, width=32)
VALUES = st.one_of(*(st.lists(kind, min_size=1, max_size=70) for kind in (ANY, TINY, USUAL)))


@MX
@given(VALUES)
def test_encode__any_values__is_the_slow_definition(codec: Codec, values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    integers, exponents = slow_encode(codec, array)
    data, scales = encoded(codec, array)
    assert list(bytes(scales)) == exponents
    assert bytes(data) == slow_pack(codec, integers)


@MX
@given(VALUES)
def test_round_trip__error__is_below_one_unit_and_decoding_is_exact(codec: Codec, values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    raw = encoded(codec, array)
    out = decoded(codec, raw, array.size)
    integers, exponents = slow_encode(codec, array)
    for index, (x, y) in enumerate(zip(array, out, strict=True)):
        unit = Fraction(2) ** (exponents[index // 32] - LIMITS[codec][1])
        assert Fraction(float(y)) == integers[index] * unit
        assert abs(Fraction(float(x)) - Fraction(float(y))) < unit


@MX
def test_exponents__at_and_beside_every_threshold__are_the_least(codec: Codec) -> None:
    limit, unit = LIMITS[codec]
    bits = {0, 1, 2}
    for exponent in range(250):
        threshold = np.float32(np.ldexp(np.float64(limit), exponent - unit)).view(np.uint32)
        bits |= {int(threshold) + step for step in (-1, 0, 1)}
        bits |= {(exponent << 23) + step for step in (0, 1)}
    wanted = np.array(sorted(bits), dtype=np.uint32)
    found = GRIDS[codec].exponents(wanted)
    for value, exponent in zip(wanted.view(np.float32), found, strict=True):
        assert int(exponent) == slow_exponent([Fraction(float(value))], limit, unit)


@MX
@pytest.mark.parametrize("sign", [1, -1])
def test_encode__the_largest_value_and_any_dither__stays_within_the_limit(codec: Codec, sign: int) -> None:
    limit, unit = LIMITS[codec]
    for exponent in (0, 1, 5, 6, 7, 100, unit, 200):
        largest = np.float32(np.ldexp(np.float64(limit), exponent - unit))
        values = np.tile(np.array([sign * largest, sign * np.nextafter(largest, np.float32(0))], np.float32), 16)
        for words in (np.zeros(32, np.uint16), np.full(32, 65_535, np.uint16)):
            (whole, exponents) = next(GRIDS[codec].encode(values, lambda count, words=words: words[:count]))
            assert int(exponents[0]) == exponent
            assert set(whole[::2].tolist()) == {sign * limit} and abs(whole.astype(int)).max() == limit


@MX
def test_encode__many_keys__is_unbiased(codec: Codec) -> None:
    values = np.random.default_rng(5).standard_normal(32).astype(np.float32)
    values[0] = 3.9
    keys = 4000
    outs = np.stack([decoded(codec, encoded(codec, values, key.to_bytes(32, "big")), 32) for key in range(keys)])
    unit = float(GRIDS[codec].scales[bytes(encoded(codec, values)[1])[0]])
    # A rounding's deviation is at most half a unit, so six standard errors of the mean are 3 / sqrt(keys) units.
    assert np.all(np.abs(outs.mean(axis=0) - values) < 3 * unit / keys**0.5)
    assert outs.std(axis=0).max() > unit / 4, "the dither does round both ways"


def refusal(codec: Codec, data: list[int], scales: list[int], size: int) -> str:
    with pytest.raises(BadContainer) as caught:
        decoded(codec, (bytes(data), bytes(scales)), size)
    return caught.value.what


@MX
def test_decode__scale_255__is_refused(codec: Codec) -> None:
    assert refusal(codec, [1], [255], 1) == "a scale of the update is 255, which stands for no number"


@pytest.mark.parametrize(
    ("codec", "data", "size"),
    [(Codec.MXINT8, [1, 0x80], 2), (Codec.MXINT4, [0x81], 2), (Codec.MXINT4, [0x18], 2), (Codec.MXINT4, [0x08], 1)],
)
def test_decode__the_integer_below_the_range__is_refused(codec: Codec, data: list[int], size: int) -> None:
    assert "which no encoder writes" in refusal(codec, data, [100], size)


@MX
@pytest.mark.parametrize(("size", "zero"), [(32, 0), (64, 0), (64, 1), (33, 1), (97, 3)])
def test_decode__a_zero_block_with_a_scale__is_refused(codec: Codec, size: int, zero: int) -> None:
    whole = np.ones(size, dtype=int)
    whole[32 * zero : 32 * zero + 32] = 0
    data = list(slow_pack(codec, whole.tolist()))
    scales = [0 if number == zero else 100 for number in range(-(-size // 32))]
    decoded(codec, (bytes(data), bytes(scales)), size)
    scales[zero] = 1
    assert refusal(codec, data, scales, size) == "a block of zeros in the update has a scale other than 0"


def test_decode__a_padding_nibble_that_is_set__is_refused() -> None:
    decoded(Codec.MXINT4, (b"\x07", b"\x64"), 1)
    assert "unused half" in refusal(Codec.MXINT4, [0x17], [100], 1)


@given(st.binary(min_size=40, max_size=40), st.binary(min_size=2, max_size=2))
@MX
def test_decode__any_bytes__gives_exact_values_or_one_refusal(codec: Codec, data: bytes, scales: bytes) -> None:
    size = 40 if codec is Codec.MXINT8 else 80
    scales = scales if size == 40 else scales + b"\x64"
    whole = [int(x) for x in np.frombuffer(data, np.int8)]
    if codec is Codec.MXINT4:
        whole = [nibble - 16 * (nibble > 7) for byte in data for nibble in (byte & 15, byte >> 4)]
    limit, unit = LIMITS[codec]
    groups = [whole[start : start + 32] for start in range(0, size, 32)]
    legal = min(whole) >= -limit and all(
        e < 255 and (any(group) or e == 0) for group, e in zip(groups, scales, strict=True)
    )
    try:
        out = decoded(codec, (data, scales), size)
    except BadContainer:
        assert not legal
        return
    assert legal
    assert [Fraction(float(y)) for y in out] == [
        m * Fraction(2) ** (scales[i // 32] - unit) for i, m in enumerate(whole)
    ]
