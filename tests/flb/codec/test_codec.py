# SPDX-License-Identifier: Apache-2.0
"""Every codec: what decodes, and how far from what was encoded."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.codec import CODINGS
from flb.types import Codec

pytestmark = pytest.mark.unit

VALUES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30)


@given(VALUES)
def test_f32__round_trip__is_identity(values: list[float]) -> None:
    coding, array = CODINGS[Codec.F32], np.array(values, dtype=np.float32)
    raw = coding.encode(array)
    assert len(raw) == coding.item_size * len(values)
    assert np.array_equal(coding.decode(memoryview(raw)), array)


@given(VALUES)
def test_bf16__round_trip__is_the_nearest_bfloat16(values: list[float]) -> None:
    coding, array = CODINGS[Codec.BF16], np.array(values, dtype=np.float32)
    raw = coding.encode(array)
    assert len(raw) == coding.item_size * len(values)
    assert np.array_equal(coding.decode(memoryview(raw)), array.astype(ml_dtypes.bfloat16).astype(np.float32))


@pytest.mark.parametrize("codec", list(Codec))
def test_coding__decode_of_encode_of_decode__is_stable(codec: Codec) -> None:
    coding = CODINGS[codec]
    once = coding.decode(memoryview(coding.encode(np.linspace(-3, 3, 100, dtype=np.float32))))
    assert np.array_equal(coding.decode(memoryview(coding.encode(once))), once)
