# SPDX-License-Identifier: Apache-2.0
"""The node's own trainer, from a config and a run spec to a trained adapter."""

import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flb import base_model
from flb.config import ChainConfig, Config, ModelConfig, TrainingConfig
from flb.dataset_config import DatasetConfig
from flb.errors import ConfigError, DatasetError, Refused, WrongBaseModel
from flb.spec import BaseSpec, RunSpec
from flb.types import Step
from flb_node import app
from flb_node.status import StatusFile
from tests import tiny_model
from tests.flb_node.test_trainer import EXAMPLES, LORA, TRAINING, adapter_of, digest, load, tensors_of, train
from tests.sim import small_spec

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def spec_of(folder: Path, **training: Any) -> RunSpec:
    base = BaseSpec("tiny", base_model.digest(folder))
    return replace(
        small_spec(), base=base, lora=LORA, tensors=tensors_of(folder), training=replace(TRAINING, **training)
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """`app.make_trainer`; torch is imported here already, with the threads that a node configures first."""
    monkeypatch.setattr(app, "configure_threads", lambda *_: None)

    def make(config: Config, spec: RunSpec) -> Any:
        run = config.chain.run or "0x" + "11" * 20
        config = replace(config, client=replace(config.client, workdir=tmp_path), chain=replace(config.chain, run=run))
        status = StatusFile(tmp_path / "status.json", lambda text: None)
        return app.make_trainer(config, spec, EXAMPLES, status, threading.Event(), None, ExitStack())

    return make


def test_make_trainer__first_step__is_that_of_the_run(folder: Path, made: Any) -> None:
    zero = adapter_of(tensors_of(folder))
    config = Config(model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"))
    trained = made(config, spec_of(folder))(zero, frozenset(zero), 1, Step(1))
    assert digest(trained) == digest(train(load(folder), zero).adapter)


def test_make_trainer__quantized_node__the_same_base_and_another_adapter(folder: Path, made: Any) -> None:
    zero = adapter_of(tensors_of(folder))
    config = Config(
        model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32", quantization=4),
        training=TrainingConfig(gradient_checkpointing=True),
    )
    spec = spec_of(folder)
    trained = made(config, spec)(zero, frozenset(zero), 1, Step(1))
    assert set(trained) == set(zero) and digest(trained) != digest(train(load(folder), zero).adapter)
    with pytest.raises(WrongBaseModel):
        made(config, replace(spec, base=BaseSpec("other", "00" * 32)))


def test_make_trainer__linear_schedule__falls_from_step_to_step(folder: Path, made: Any) -> None:
    zero = adapter_of(tensors_of(folder))
    config = Config(model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"))
    trainer = made(config, spec_of(folder, lr_schedule="linear", local_steps=1))
    name = next(name for name in zero if ".lora_B." in name)
    moved = [abs(trainer(zero, frozenset(zero), 1, Step(step))[name]).max() for step in (1, 2, 3)]
    assert moved == pytest.approx([moved[0], moved[0] * 2 / 3, moved[0] / 3], rel=1e-3)


def test_make_trainer__other_chat_template__is_what_it_trains_on(folder: Path, made: Any, tmp_path: Path) -> None:
    zero = adapter_of(tensors_of(folder))
    template = tmp_path / "other.jinja"
    template.write_text("{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}")
    config = Config(
        model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"),
        dataset=DatasetConfig(chat_template=template),
    )
    trained = made(config, spec_of(folder))(zero, frozenset(zero), 1, Step(1))
    local = load(folder)
    assert digest(trained) != digest(train(local, zero).adapter)
    local.tokenizer.chat_template = template.read_text()
    local._dataset = None
    assert digest(trained) == digest(train(local, zero).adapter)


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"objective": "dpo"}, "example 1 has no rejected answer"), ({"max_length": 8}, "8 tokens or more")],
)
def test_make_trainer__data_that_the_run_cannot_use__refused_before_a_round(
    folder: Path, made: Any, asked: dict[str, Any], named: str
) -> None:
    config = Config(model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"))
    with pytest.raises(DatasetError, match=named):
        made(config, spec_of(folder, **asked))


def test_make_trainer__rate_that_float32_does_not_hold__refused_before_torch_meets_it(folder: Path, made: Any) -> None:
    config = Config(model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"))
    with pytest.raises(Refused, match="training.learning_rate of the run is 1e[+]38, and training bears at most 1,000"):
        made(config, spec_of(folder, learning_rate=1e38))


def test_make_trainer__packing_in_a_run_of_dpo__refused_before_the_model_is_looked_for(
    folder: Path, made: Any, tmp_path: Path
) -> None:
    config = Config(model=ModelConfig(model_path=tmp_path / "absent"), training=TrainingConfig(packing=True))
    with pytest.raises(ConfigError, match="training.packing is for the objective sft; this run trains dpo"):
        made(config, spec_of(folder, objective="dpo"))


def test_run__packing_in_two_processes__refused_before_anything_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(app, "handle_signals", lambda *_: None)  # this process's own stay
    path = tmp_path / "config.yaml"
    path.write_text("training:\n  packing: true\nclient:\n  processes: 2\n")
    with pytest.raises(ConfigError, match="training.packing works in one process"):
        app.run(path)


def test_make_trainer__next_run_in_the_same_folder__no_moments_of_the_run_before(folder: Path, made: Any) -> None:
    zero = adapter_of(tensors_of(folder))
    config = Config(model=ModelConfig(model_path=folder, device_map="cpu", dtype="float32"))
    spec = spec_of(folder, optimizer_state="keep")
    made(config, spec)(zero, frozenset(zero), 1, Step(1))
    fresh = digest(train(load(folder), zero).adapter)
    other = replace(config, chain=ChainConfig(run="0x" + "22" * 20))
    assert digest(made(other, spec)(zero, frozenset(zero), 1, Step(2))) == fresh
    assert digest(made(config, spec)(zero, frozenset(zero), 1, Step(2))) != fresh
