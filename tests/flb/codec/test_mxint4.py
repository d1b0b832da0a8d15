# SPDX-License-Identifier: Apache-2.0
"""mxint4: fixed bytes for a fixed tensor, worked out by the slow definition in tests/coded.py."""

import numpy as np
import pytest

from flb.types import Codec
from tests.coded import decoded, encoded, slow_encode, slow_pack
from tests.golden import TENSOR

pytestmark = pytest.mark.unit

WHOLE = "0000000000d0f2f0000000d60200001000000000000000000000000000000000000004"
SCALES = "83007d"


def test_encode__golden_tensor__gives_the_golden_bytes() -> None:
    data, scales = encoded(Codec.MXINT4, TENSOR)
    assert (bytes(data).hex(), bytes(scales).hex()) == (WHOLE, SCALES)


def test_slow_definition__golden_tensor__gives_the_golden_bytes() -> None:
    integers, exponents = slow_encode(Codec.MXINT4, TENSOR)
    assert (slow_pack(Codec.MXINT4, integers).hex(), bytes(exponents).hex()) == (WHOLE, SCALES)


def test_decode__golden_bytes__gives_values_worked_out_by_hand() -> None:
    out = decoded(Codec.MXINT4, (bytes.fromhex(WHOLE), bytes.fromhex(SCALES)), TENSOR.size)
    assert out[10:16].tolist() == [0.0, -12.0, 8.0, -4.0, 0.0, -4.0]  # bytes d0, f2, f0 times 2^(131 - 129)
    assert out[68] == 0.25  # 4 · 2^(125 - 129)


def test_decode__every_nibble_and_scale__is_exact() -> None:
    legal = [m for m in range(-7, 8) if m]
    for exponent in range(255):
        out = decoded(Codec.MXINT4, (slow_pack(Codec.MXINT4, legal), bytes([exponent])), len(legal))
        assert out.astype(np.float64).tolist() == [m * np.ldexp(np.float64(1), exponent - 129) for m in legal]
