# SPDX-License-Identifier: Apache-2.0
"""The adapter's shape, and its alpha, at ranks other than the run's."""

import json

import pytest

from flb.lora.peft_config import peft_config
from flb.lora.shape import alpha_at, at_rank, has_rank, largest_rank, rank_of
from flb.spec import BaseSpec, LoraSpec
from flb.types import TensorSpec

pytestmark = pytest.mark.unit

TENSORS = (TensorSpec("m.lora_A.weight", (4, 7)), TensorSpec("m.lora_B.weight", (5, 4)), TensorSpec("m.bias", (3,)))


def lora(mode: str = "stack", r: int = 4, alpha: int = 6, **more: object) -> LoraSpec:
    return LoraSpec(mode, r, alpha, 0.0, ("m",), **more)  # type: ignore[arg-type]


def test_at_rank__factors__change_the_one_extent_that_is_the_rank() -> None:
    assert [tensor.shape for tensor in at_rank(TENSORS, 9)] == [(9, 7), (5, 9), (3,)]
    assert [tensor.name for tensor in at_rank(TENSORS, 9)] == [tensor.name for tensor in TENSORS]
    assert rank_of(at_rank(TENSORS, 9)) == 9 and rank_of(TENSORS[1:]) == 4 and rank_of(TENSORS[2:]) == 0


@pytest.mark.parametrize(
    ("run", "legal", "illegal"),
    [
        (lora("factors"), {4}, {0, 3, 5}),
        (lora("factors", residual_rank=3), {4, 7}, {3, 5, 8}),
        (lora("product", ranks=(2, 4)), {4}, {2, 5}),
        (lora(max_rank=9), set(range(1, 10)), {0, 10}),
        (lora(max_rank=2), {1, 2, 3, 4}, {5}),  # adapter 0 has the run's own rank
    ],
)
def test_has_rank__modes__know_the_ranks_that_their_adapters_may_have(
    run: LoraSpec, legal: set[int], illegal: set[int]
) -> None:
    assert all(has_rank(run, rank) for rank in legal) and not any(has_rank(run, rank) for rank in illegal)
    assert largest_rank(run) == max(legal)


@pytest.mark.parametrize("rank", [1, 2, 4, 6, 40])
@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_at__any_rank__keeps_the_run_s_scale(rank: int, rslora: bool) -> None:
    run = lora(rslora=rslora)
    assert alpha_at(run, rank) / (rank**0.5 if rslora else rank) == pytest.approx(run.scale, rel=1e-15)


def test_peft_config__a_larger_rank__names_it_and_a_whole_alpha_where_there_is_one() -> None:
    written = [json.loads(peft_config(BaseSpec("b", ""), lora(), rank)) for rank in (4, 6, 5)]
    assert [(config["r"], config["lora_alpha"]) for config in written] == [(4, 6), (6, 9), (5, 7.5)]
    assert "use_rslora" not in written[0]
    assert json.loads(peft_config(BaseSpec("b", ""), lora(rslora=True), 4))["use_rslora"] is True
