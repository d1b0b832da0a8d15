# SPDX-License-Identifier: Apache-2.0
"""What a node trains and what it freezes, in every mode."""

import numpy as np
import pytest

from flb.delta import Float32
from flb.lora import adapter_zero, parts
from flb.spec import LoraSpec
from flb.types import Step, TensorSpec

pytestmark = pytest.mark.unit

A, B = "m.lora_A.weight", "m.lora_B.weight"
D, K = 5, 7


def adapter(rank: int) -> dict[str, Float32]:
    random = np.random.default_rng(rank)
    return {A: random.standard_normal((rank, K)).astype("f4"), B: random.standard_normal((D, rank)).astype("f4")}


def lora(mode: str, r: int = 4, **more: object) -> LoraSpec:
    return LoraSpec(mode, r, 8, 0.0, ("m",), **more)  # type: ignore[arg-type]


def product(tensors: parts.Tensors) -> np.ndarray:
    return tensors[B].astype(np.float64) @ tensors[A]


@pytest.mark.parametrize("rank", [1, 3, 4, 6])
def test_split__any_rank__the_parts_add_up_to_the_adapter(rank: int) -> None:
    whole = adapter(4)
    both = parts.split(whole, rank)
    trained, frozen = parts.trained(both), parts.thawed(both)
    assert trained[A].shape == (rank, K) and trained[B].shape == (D, rank)
    assert bool(frozen) == (rank < 4) and set(both) == set(trained) | set(parts.frozen(frozen))
    total = product(trained) + (product(frozen) if frozen else 0)
    assert np.allclose(total, product(whole), atol=1e-12)


@pytest.mark.parametrize("mode", ["factors", "alternate", "freeze_a"])
def test_start_of__the_run_s_own_rank__is_the_adapter_and_nothing_frozen(mode: str) -> None:
    whole = adapter(4)
    assert all(
        value is whole[name] or np.array_equal(value, whole[name])
        for name, value in parts.start_of(lora(mode), 0, Step(2), 4, whole).items()
    )
    assert parts.start_of(lora(mode), 0, Step(2), 4, whole).keys() == whole.keys()


def test_start_of__a_residual__trains_the_first_ranks_and_freezes_the_rest() -> None:
    whole = adapter(6)
    both = parts.start_of(lora("factors", residual_rank=2), 0, Step(2), 4, whole)
    assert np.array_equal(both[A], whole[A][:4]) and np.array_equal(both[B], whole[B][:, :4])
    frozen = parts.thawed(both)
    assert np.array_equal(frozen[A], whole[A][4:]) and np.array_equal(frozen[B], whole[B][:, 4:])


def test_start_of__product_at_a_lower_rank__trains_the_first_ranks_and_leaves_the_rest_out() -> None:
    whole = adapter(4)
    both = parts.start_of(lora("product", ranks=(2, 4)), 0, Step(2), 2, whole)
    assert both.keys() == whole.keys()
    assert np.array_equal(both[A], whole[A][:2]) and np.array_equal(both[B], whole[B][:, :2])


def test_start_of__stack__trains_a_fresh_adapter_and_freezes_all_but_adapter_zero() -> None:
    first = parts.start_of(lora("stack"), 3, Step(1), 2, adapter(4))
    assert set(first) == {A, B} and not first[B].any()
    second = parts.start_of(lora("stack"), 3, Step(2), 2, adapter(9))
    assert parts.thawed(second).keys() == first.keys() and second[B].shape == (D, 2) and not second[B].any()
    assert np.array_equal(parts.thawed(second)[A], adapter(9)[A])
    assert not np.array_equal(first[A], second[A]), "each step has a start of its own"


def test_fresh__another_rank__has_the_same_first_rows() -> None:
    large, small = (parts.fresh(adapter(4), 3, Step(2), rank)[A] for rank in (4, 2))
    assert np.array_equal(large[:2], small)
    zero = np.concatenate(list(adapter_zero.blocks(TensorSpec(A, (4, K)), 3))).reshape(4, K)
    assert not np.array_equal(large, zero) and np.abs(large).max() <= 1 / np.sqrt(K)
