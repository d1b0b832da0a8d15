# SPDX-License-Identifier: Apache-2.0
"""Which factors a step sends."""

import pytest

from flb.lora.mode import sent
from flb.types import LoraMode, Step, TensorSpec

pytestmark = pytest.mark.unit

A, B = TensorSpec("x.lora_A.weight", (2, 8)), TensorSpec("x.lora_B.weight", (8, 2))


def test_factors__every_step__sends_both() -> None:
    assert [sent(LoraMode.FACTORS, (A, B), Step(step)) for step in (1, 2)] == [(A, B), (A, B)]


def test_alternate__odd_steps__send_b_first() -> None:
    assert [sent(LoraMode.ALTERNATE, (A, B), Step(step)) for step in (1, 2, 3)] == [(B,), (A,), (B,)]
