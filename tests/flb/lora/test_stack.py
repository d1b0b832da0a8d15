# SPDX-License-Identifier: Apache-2.0
"""What a stack keeps, and what a step sends."""

import pytest

from flb.lora.stack import kept_rank, sent
from flb.types import Step, TensorSpec

pytestmark = pytest.mark.unit


def test_kept_rank__adapter_zero__is_not_part_of_the_stack() -> None:
    assert kept_rank(4, Step(1)) == 0 and kept_rank(9, Step(2)) == 9


def test_sent__both_factors() -> None:
    tensors = (TensorSpec("m.lora_A.weight", (4, 7)), TensorSpec("m.lora_B.weight", (5, 4)))
    assert sent(tensors, Step(2)) == tensors
