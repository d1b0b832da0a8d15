# SPDX-License-Identifier: Apache-2.0
"""Every codec: what decodes, and how far from what was encoded."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.codec import CODINGS
from flb.types import Codec
from tests.coded import decoded, draw, encoded

pytestmark = pytest.mark.unit

VALUES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


@given(VALUES)
def test_f32__round_trip__is_identity(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    raw = encoded(Codec.F32, array)
    assert [len(part) for part in raw] == [4 * len(values)]
    assert np.array_equal(decoded(Codec.F32, raw, array.size), array)


@given(VALUES)
def test_bf16__round_trip__is_the_nearest_bfloat16(values: list[float]) -> None:
    array = np.array(values, dtype=np.float32)
    raw = encoded(Codec.BF16, array)
    assert [len(part) for part in raw] == [2 * len(values)]
    assert np.array_equal(decoded(Codec.BF16, raw, array.size), array.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("codec", list(Codec))
def test_coding__decode_of_encode_of_decode__is_stable(codec: Codec) -> None:
    once = decoded(codec, encoded(codec, np.linspace(-3, 3, 101, dtype=np.float32)), 101)
    assert np.array_equal(decoded(codec, encoded(codec, once), 101), once)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("size", [1, 31, 32, 33, 32_768, 32_769, 70_001])
def test_coding__any_size__has_the_bytes_that_its_parts_say(codec: Codec, size: int) -> None:
    parts = CODINGS[codec].parts
    raw = encoded(codec, np.linspace(-1e-3, 1e-3, size, dtype=np.float32))
    assert [len(data) for data in raw] == [part.items(size) * part.item_size for part in parts]


@pytest.mark.parametrize("codec", [Codec.MXINT8, Codec.MXINT4])
def test_coding__whole_tensor_and_its_blocks__decode_alike(codec: Codec) -> None:
    values = np.random.default_rng(1).standard_normal(3 * 32_768 + 45).astype(np.float32)
    coding, raw = CODINGS[codec], encoded(codec, values)
    blocks = []
    for start in range(0, values.size, 32_768):
        out = np.empty(min(32_768, values.size - start), dtype=np.float32)
        views = [
            memoryview(data)[part.items(start) * part.item_size :][: part.items(out.size) * part.item_size]
            for part, data in zip(coding.parts, raw, strict=True)
        ]
        blocks.append(coding.decode(views, out).copy())
    assert np.array_equal(np.concatenate(blocks), decoded(codec, raw, values.size))


def test_f32_and_bf16__encode__draw_nothing() -> None:
    numbers = draw()
    for codec in (Codec.F32, Codec.BF16):
        CODINGS[codec].encode(np.ones(100, dtype=np.float32), numbers)
    assert np.array_equal(numbers(8), draw()(8))
