# SPDX-License-Identifier: Apache-2.0
"""AdamW's moments that go from round to round, through restarts and crashes."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flb.delta import Float32
from flb.errors import CorruptStore
from flb_node import optimizer_state
from flb_node.trainer import LocalTrainer
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, TRAINING, adapter_of, digest, load, tensors_of

pytestmark = pytest.mark.model

KEEP = replace(TRAINING, optimizer_state="keep", local_steps=2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def local(base: Path) -> LocalTrainer:
    return load(base)


@pytest.fixture(scope="module")
def zero(base: Path) -> dict[str, Float32]:
    return adapter_of(tensors_of(base))


def train(
    local: LocalTrainer, adapter: dict[str, Float32], step: int, folder: Path, names: frozenset[str] | None = None
) -> dict[str, Float32]:
    some = names or frozenset(adapter)
    return local.train(EXAMPLES, adapter, some, KEEP, step, lambda *_: None, step=step, steps=9, kept=folder).adapter


def test_train__kept__differs_from_reset_after_the_first_step(
    local: LocalTrainer, zero: dict[str, Float32], tmp_path: Path
) -> None:
    first = train(local, zero, 0, tmp_path)
    reset = replace(KEEP, optimizer_state="reset")
    fresh = [local.train(EXAMPLES, first, frozenset(zero), reset, 1, lambda *_: None, step=1, steps=9).adapter]
    assert digest(train(local, first, 1, tmp_path)) != digest(fresh[0])


def test_train__kept_over_a_restart__same_bits(
    base: Path, local: LocalTrainer, zero: dict[str, Float32], tmp_path: Path
) -> None:
    first = train(local, zero, 0, tmp_path)
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert digest(train(load(base), first, 1, tmp_path / "copy")) == digest(train(local, first, 1, tmp_path))


def test_train__step_trained_again_after_a_crash__same_bits(
    local: LocalTrainer, zero: dict[str, Float32], tmp_path: Path
) -> None:
    first = train(local, zero, 0, tmp_path)
    second = digest(train(local, first, 1, tmp_path))
    assert digest(train(local, first, 1, tmp_path)) == second


def test_train__factors_in_turn__the_other_factor_keeps_its_moments(
    local: LocalTrainer, zero: dict[str, Float32], tmp_path: Path
) -> None:
    sides = [frozenset(name for name in zero if f".lora_{side}." in name) for side in "BA"]
    adapter = train(local, zero, 0, tmp_path, sides[0])
    left = optimizer_state.read(tmp_path, 1)
    train(local, adapter, 1, tmp_path, sides[1])
    both = optimizer_state.read(tmp_path, 2)
    assert {name.split("/")[0] for name in left} == sides[0] and {name.split("/")[0] for name in both} == set(zero)
    assert all(torch.equal(both[name], left[name]) for name in left)


def test_write__many_steps__two_files_stay(tmp_path: Path) -> None:
    for step in range(5):
        optimizer_state.write(tmp_path, step, {"t/step": torch.tensor(float(step))})
    assert len(list(tmp_path.iterdir())) == 2
    assert optimizer_state.read(tmp_path, 9)["t/step"] == 4 and optimizer_state.read(tmp_path, 4)["t/step"] == 3
    assert optimizer_state.read(tmp_path, 0) == {}


def test_read__damaged__corrupt_store_that_names_the_file(tmp_path: Path) -> None:
    optimizer_state.write(tmp_path, 0, {"t/step": torch.tensor(1.0)})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:10])
    with pytest.raises(CorruptStore, match="optimizer-00000000.safetensors is damaged: delete it"):
        optimizer_state.read(tmp_path, 1)
