# SPDX-License-Identifier: Apache-2.0
"""How far a stack may grow."""

import pytest

from flb.lora.stack import kept_rank, sent, worst_rank
from flb.spec import LoraSpec
from flb.types import Step, TensorSpec

pytestmark = pytest.mark.unit


def lora(**more: object) -> LoraSpec:
    return LoraSpec("stack", 4, 8, 0.0, ("m",), **more)  # type: ignore[arg-type]


def test_worst_rank__every_node_at_the_largest_rank_in_every_step() -> None:
    assert worst_rank(lora(), 3, 5) == 60 and worst_rank(lora(ranks=(1, 2)), 3, 5) == 30


def test_kept_rank__adapter_zero__is_not_part_of_the_stack() -> None:
    assert kept_rank(4, Step(1)) == 0 and kept_rank(9, Step(2)) == 9


def test_sent__both_factors() -> None:
    tensors = (TensorSpec("m.lora_A.weight", (4, 7)), TensorSpec("m.lora_B.weight", (5, 4)))
    assert sent(tensors, Step(2)) == tensors
