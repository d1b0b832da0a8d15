# SPDX-License-Identifier: Apache-2.0
"""What a run can't use is found from settings, files and tokens alone, without the model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flb import base_model
from flb.config import ClientConfig, Config, ModelConfig
from flb.config import TrainingConfig as OwnTraining
from flb.errors import ConfigError, DatasetError, FLBError, WrongBaseModel
from flb.spec import BaseSpec, RunSpec
from flb_node import usable
from flb_node.examples import Example, Message
from tests import tiny_model
from tests.sim import small_spec

pytestmark = pytest.mark.model

PLAIN = tuple(Example((Message("user", f"{n}?"), Message("assistant", f"{n}!"))) for n in range(3))
PAIRS = tuple(replace(example, rejected=Message("assistant", "no")) for example in PLAIN)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def settings(base: Path, tmp_path: Path) -> Config:
    return Config(model=ModelConfig(model_path=base), client=ClientConfig(workdir=tmp_path))


def spec_of(base: Path, **training: Any) -> RunSpec:
    spec = small_spec()
    named = BaseSpec("tiny", base_model.digest(base))
    return replace(spec, base=named, training=replace(spec.training, **{"max_length": 64, **training}))


@pytest.mark.parametrize(("objective", "examples"), [("sft", PLAIN), ("sft", PAIRS), ("dpo", PAIRS)])
def test_check__data_that_the_run_can_use__leaves_their_tokens_for_the_training(
    settings: Config, base: Path, objective: str, examples: tuple[Example, ...]
) -> None:
    usable.check(settings, spec_of(base, objective=objective), examples)
    assert len(list((settings.client.workdir / "tokens").iterdir())) == 1


@pytest.mark.parametrize(
    ("asked", "examples", "kind", "words"),
    [
        ({"objective": "dpo"}, PLAIN, DatasetError, "example 1 has no rejected answer, and the run trains with DPO"),
        ({"objective": "dpo"}, (*PAIRS, PLAIN[0]), DatasetError, "example 4 has no rejected answer"),
        ({"max_length": 8}, PLAIN, DatasetError, "each of the 3 examples has a prompt of 8 tokens or more"),
        ({"max_length": 8, "objective": "dpo"}, PAIRS, DatasetError, "each of the 3 pairs has a prompt of 8 tokens"),
        ({"max_length": 1024}, PLAIN, DatasetError, "the run cuts records at 1024 tokens, but the base model in"),
    ],
)
def test_check__data_that_the_run_cannot_use__is_one_sentence_with_a_remedy(
    settings: Config, base: Path, asked: dict[str, Any], examples: tuple[Example, ...], kind: type[FLBError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        usable.check(settings, spec_of(base, **asked), examples)
    assert caught.value.remedy


def test_check__a_rank_that_the_run_does_not_allow__is_refused(settings: Config, base: Path) -> None:
    spec = spec_of(base)
    spec = replace(spec, lora=replace(spec.lora, mode="product", ranks=(1, 2)))
    usable.check(replace(settings, client=replace(settings.client, rank=1)), spec, PLAIN)
    with pytest.raises(ConfigError, match="client.rank is 3, and nodes of this run train at rank 1 or 2"):
        usable.check(replace(settings, client=replace(settings.client, rank=3)), spec, PLAIN)


def test_check__another_base_or_packing_where_it_does_not_go__is_refused(settings: Config, base: Path) -> None:
    spec = spec_of(base)
    with pytest.raises(WrongBaseModel, match="is not this run's"):
        usable.check(settings, replace(spec, base=BaseSpec("other", "00" * 32)), PLAIN)
    packed = replace(settings, training=OwnTraining(packing=True))
    with pytest.raises(ConfigError, match="training.packing is for the objective sft"):
        usable.check(packed, spec_of(base, objective="dpo"), PAIRS)


def test_check__context_of_the_base__counts_at_its_own_length(settings: Config, base: Path) -> None:
    limit = json.loads((base / "config.json").read_text())["max_position_embeddings"]
    usable.check(settings, spec_of(base, max_length=limit), PLAIN)
