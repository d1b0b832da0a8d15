# SPDX-License-Identifier: Apache-2.0
"""A base in 8 and 4 bits on a CPU: loads, trains to the same bits, and stays what it was."""

import hashlib
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from flb import base_model
from flb.delta import Float32
from flb.errors import ConfigError
from flb.lora import parts
from flb_node import quantization, trainer
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import LORA, adapter_of, digest, tensors_of, train

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def zero(folder: Path) -> dict[str, Float32]:
    return adapter_of(tensors_of(folder))


def load(folder: Path, bits: int | None, dtype: str = "float32") -> LocalTrainer:
    return trainer.load(folder, LORA, tensors_of(folder), device_map="cpu", dtype=dtype, seed=0, bits=bits)


def base_digest(local: LocalTrainer) -> str:
    weights = (value for name, value in sorted(local.model.named_parameters()) if "lora" not in name)
    return hashlib.sha256(
        b"".join(w.detach().contiguous().view(torch.uint8).numpy().tobytes() for w in weights)
    ).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("bits", "kind"), [(8, Linear8bitLt), (4, Linear4bit)])
def test_train__quantized__same_bits_again_float32_adapter_and_an_untouched_base(
    folder: Path, zero: dict[str, Float32], bits: int, kind: type, dtype: str
) -> None:
    local = load(folder, bits, dtype)
    layers = [module for module in local.model.modules() if isinstance(module, kind)]
    assert len(layers) == 14, "every linear module but the output head"
    before = base_digest(local)
    first = train(local, zero)
    train(local, first.adapter, seed=2)
    assert digest(train(local, zero).adapter) == digest(first.adapter)
    assert digest(train(load(folder, bits, dtype), zero).adapter) == digest(first.adapter)
    assert {weight.dtype for weight in local.weights.values()} == {torch.float32}
    assert base_digest(local) == before


@pytest.mark.parametrize("bits", [8, 4])
def test_train__quantized_with_a_frozen_part__trains_with_it_to_the_same_bits(
    folder: Path, zero: dict[str, Float32], bits: int
) -> None:
    local = load(folder, bits)
    moved = train(local, zero).adapter
    first, alone = train(local, {**zero, **parts.frozen(moved)}), train(local, zero)
    assert first.losses[0] < alone.losses[0] and set(first.adapter) == set(zero)
    assert digest(train(local, {**zero, **parts.frozen(moved)}).adapter) == digest(first.adapter)


@pytest.mark.parametrize("bits", [8, 4])
def test_train__quantized_and_not__losses_alike_and_another_adapter(
    folder: Path, zero: dict[str, Float32], bits: int
) -> None:
    whole, quantized = train(load(folder, None), zero), train(load(folder, bits), zero)
    assert quantized.losses == pytest.approx(whole.losses, rel=0.02)
    assert digest(quantized.adapter) != digest(whole.adapter)


def test_load__bits__less_memory_for_the_linear_modules_and_the_same_identity(folder: Path) -> None:
    identity = base_model.digest(folder)
    sizes = [load(folder, bits).model.get_memory_footprint() for bits in (None, 8, 4)]
    assert sizes[0] > sizes[1] > sizes[2]
    assert base_model.digest(folder) == identity


def test_load__auto_dtype__measures_the_quantized_base(folder: Path, zero: dict[str, Float32]) -> None:
    local = load(folder, 4, "auto")
    assert set(local.measured) == {"float32", "bfloat16"}
    assert digest(train(local, zero).adapter) == digest(train(load(folder, 4, local.dtype), zero).adapter)


def test_config_of__device_without_kernels__config_error() -> None:
    with pytest.raises(ConfigError, match="does not run on mps"):
        quantization.config_of(4, torch.float32, "mps")
    assert quantization.config_of(None, torch.float32, "mps") is None
