# SPDX-License-Identifier: Apache-2.0
"""A trainer with packed rows, and one that starts from tokens on disk: the same bits each time."""

from pathlib import Path

import numpy as np
import pytest

from flb import base_model
from flb.delta import Float32
from flb.lora import adapter_zero, layout
from flb.spec import LoraSpec, TrainingSpec
from flb_node import trainer
from flb_node.data import Example, Message
from flb_node.token_cache import TokenCache, tokenizer_digest
from flb_node.trainer import LocalTrainer
from tests import tiny_model

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 4, 8, 0.05, ("q_proj", "v_proj"))
TRAINING = TrainingSpec(local_steps=3, batch_size=2, learning_rate=5e-3, max_length=256, seed=0)
EXAMPLES = tuple(
    Example((Message("user", f"What follows {i}?"), Message("assistant", f"After {i} comes {i + 1}.")))
    for i in range(20)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def trained(folder: Path, tokens: Path, packing: bool) -> tuple[LocalTrainer, dict[str, Float32], tuple[float, ...]]:
    tensors = layout.adapter_tensors(layout.resolve(base_model.tensors(folder), LORA.target_modules), LORA.r)
    cache = TokenCache(tokens, tokenizer_digest(folder))
    local = trainer.load(folder, LORA, tensors, device_map="cpu", dtype="float32", seed=0, cache=cache, packing=packing)
    zero = {one.name: np.concatenate(list(adapter_zero.blocks(one, 7))).reshape(one.shape) for one in tensors}
    done = local.train(EXAMPLES, zero, frozenset(zero), TRAINING, 1, lambda *_: None)
    return local, done.adapter, done.losses


@pytest.mark.parametrize("packing", [False, True])
def test_train__second_start__same_bits_from_tokens_on_disk(packing: bool, folder: Path, tmp_path: Path) -> None:
    _, first, losses = trained(folder, tmp_path, packing)
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    _, second, again = trained(folder, tmp_path, packing)
    assert losses == again and all(np.array_equal(first[name], second[name]) for name in first)
    assert file.stat().st_mtime_ns == written
    assert losses[-1] < losses[0]


def test_train__packed__fewer_rows_with_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    plain, packed = (trained(folder, tmp_path, packing)[0]._dataset[1] for packing in (False, True))
    assert len(plain) == 20 and len(packed) < 8
    assert (
        sum(map(len, plain["input_ids"])) == sum(map(len, packed["input_ids"])) == sum(map(sum, packed["seq_lengths"]))
    )


def test_prepare__packed__as_many_tokens_a_row_as_there_are(folder: Path, tmp_path: Path) -> None:
    plain, packed = (trained(folder, tmp_path, packing)[0] for packing in (False, True))
    rows = packed._dataset[1]
    assert packed.tokens_a_row == sum(map(len, rows["input_ids"])) / len(rows)
    assert packed.tokens_a_row * len(rows) == pytest.approx(plain.tokens_a_row * len(EXAMPLES))
