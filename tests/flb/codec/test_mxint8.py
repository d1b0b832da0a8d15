# SPDX-License-Identifier: Apache-2.0
"""mxint8: fixed bytes for a fixed tensor, worked out by the slow definition in tests/coded.py."""

import numpy as np
import pytest

from flb.codec import mxint8
from flb.types import Codec
from tests.coded import decoded, encoded, slow_encode, slow_pack
from tests.golden import TENSOR

pytestmark = pytest.mark.unit

WHOLE = (
    "04fc03fe02ff0000000000d01af207fc02ff00ff01005cd019f306fd02ff0010"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "0000000040"
)
SCALES = "83007d"


def test_encode__golden_tensor__gives_the_golden_bytes() -> None:
    data, scales = encoded(Codec.MXINT8, TENSOR)
    assert (bytes(data).hex(), bytes(scales).hex()) == (WHOLE, SCALES)


def test_slow_definition__golden_tensor__gives_the_golden_bytes() -> None:
    integers, exponents = slow_encode(Codec.MXINT8, TENSOR)
    assert (slow_pack(Codec.MXINT8, integers).hex(), bytes(exponents).hex()) == (WHOLE, SCALES)


def test_decode__golden_bytes__gives_values_worked_out_by_hand() -> None:
    out = decoded(Codec.MXINT8, (bytes.fromhex(WHOLE), bytes.fromhex(SCALES)), TENSOR.size)
    assert out[:4].tolist() == [1.0, -1.0, 0.75, -0.5]  # 4, -4, 3 and -2 times 2^(131 - 133)
    assert out[31] == 4.0 and out[32:68].tolist() == [0.0] * 36  # 16 · 2^-2
    assert out[68] == 0.25  # 64 · 2^(125 - 133)


def test_decode__every_scale__is_exact() -> None:
    for exponent in range(255):
        raw = (bytes([127, 129, 1, 255]), bytes([exponent]))
        unit = np.ldexp(np.float64(1), exponent - 133)
        assert decoded(Codec.MXINT8, raw, 4).astype(np.float64).tolist() == [127 * unit, -127 * unit, unit, -unit]
    assert mxint8.GRID.scales[0] == np.float32(2.0**-133)
