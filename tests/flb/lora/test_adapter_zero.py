# SPDX-License-Identifier: Apache-2.0
"""Adapter 0: the same bits everywhere, B zero, A within its bound."""

import hashlib

import numpy as np
import pytest
from Crypto.Cipher import AES

from flb.lora.adapter_zero import blocks
from flb.types import TensorSpec

pytestmark = pytest.mark.unit

A = TensorSpec("base_model.model.model.layers.0.mlp.down_proj.lora_A.weight", (8, 5000))


def values(tensor: TensorSpec, seed: int) -> np.ndarray:
    return np.concatenate(list(blocks(tensor, seed)))


def test_blocks__b__is_zero() -> None:
    assert not values(TensorSpec("x.lora_B.weight", (300, 200)), 0).any()


def test_blocks__a__follows_the_stated_stream() -> None:
    key = hashlib.sha256((7).to_bytes(8, "big") + A.name.encode()).digest()
    stream = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(8 * A.size))
    word = int.from_bytes(stream[8 * 39_999 : 8 * 40_000], "little") >> 11
    expected = np.float32((2 * (word * 2.0**-53) - 1) / np.sqrt(5000.0))
    assert values(A, 7)[39_999] == expected


def test_blocks__a__fills_its_bound() -> None:
    drawn = values(A, 0) * np.sqrt(5000)
    assert np.abs(drawn).max() <= 1 and drawn.std() == pytest.approx(3**-0.5, abs=0.01)
    assert abs(drawn.mean()) < 0.02


def test_blocks__another_seed_or_name__gives_other_values() -> None:
    other = TensorSpec(A.name.replace("0", "1"), A.shape)
    assert len({values(A, 0).tobytes(), values(A, 1).tobytes(), values(other, 0).tobytes()}) == 3


def test_blocks__golden__never_changes() -> None:
    assert hashlib.sha256(values(A, 0).astype("<f4").tobytes()).hexdigest()[:16] == "571953969bb944b4"
