# SPDX-License-Identifier: Apache-2.0
"""Two rounds as status, reports and evaluation see them: one count of steps over both."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.integrations import integration_utils

from flb.config import ClientConfig
from flb.errors import MissingTool
from flb.spec import LoraSpec
from flb.store import BlobStore
from flb.types import Address, Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import trainer
from flb_node.data import Example, Message
from flb_node.evaluation import Evaluation, HeldOut
from flb_node.status import StatusFile
from flb_node.watch import open_watch
from tests import tiny_model
from tests.flb_node.test_report import Recorder
from tests.flb_node.test_trainer import tensors_of
from tests.sim import small_spec

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 2, 4, 0.0, ("q_proj",))
RUN = Address(bytes.fromhex("11" * 20))
EXAMPLES = tuple(Example((Message("user", f"{n}?"), Message("assistant", f"{n}"))) for n in range(4))


def test_watch__two_rounds__steps_are_counted_over_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    Recorder.heard.clear()
    base = tiny_model.build(tmp_path / "base")
    spec = dataclasses.replace(small_spec(), lora=LORA, tensors=tensors_of(base, LORA))
    spec = dataclasses.replace(spec, training=dataclasses.replace(spec.training, max_length=99))
    blobs, lines = BlobStore(tmp_path / "blobs"), list[str]()
    status = StatusFile(tmp_path / "status.json", lines.append)
    evaluation = Evaluation(tmp_path, blobs, HeldOut(EXAMPLES[:1]), lines.append, status.kept.update)
    client = ClientConfig(workdir=tmp_path, report_to=("recorder",))
    watch = open_watch(client, spec, status, evaluation, lines.append, RUN)
    local = trainer.load(base, LORA, spec.tensors, device_map="cpu", dtype="float32", seed=0)
    local.prepare(EXAMPLES, spec.training)
    watch.loaded(local.model, local.tokenizer, local.weights, local.tokens_a_row)
    adapter: Digest = make_adapter_zero(spec.tensors, 0, blobs)
    values = {name: np.array(weight.detach()) for name, weight in local.weights.items()}
    for number, step in ((1, 1), (3, 2)):  # round 2 was void
        status("downloading", round=number, step=step)
        watch.begin()
        local.train(EXAMPLES, values, frozenset(values), spec.training, 0, watch.step)
        evaluation.add(spec, Step(step - 1), adapter)
        evaluation.advance(lambda: False, math.inf)
    steps: list[Any] = [heard[0] for heard in Recorder.heard if len(heard) == 2 and "loss" in heard[1]]
    assert steps == [1, 2, 3, 4]
    assert [heard[1] for heard in Recorder.heard if heard[0] == "begin"] == ["flb-111111111111"]
    measured = [heard for heard in Recorder.heard if len(heard) == 2 and "held_out/loss" in heard[1]]
    assert [step for step, _ in measured] == [0], "the same adapter is measured once"
    status("waiting")
    shown = json.loads((tmp_path / "status.json").read_text())
    assert shown["held_out"]["step"] == 0
    assert watch.progress.tokens_a_step > 0 and (watch.progress.round, watch.progress.rounds) == (2, 3)
    assert any(line.startswith("training round=3 local_step=0") for line in lines)


def test_open_watch__package_missing__before_a_model_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: False)
    client = ClientConfig(workdir=tmp_path, report_to=("tensorboard",))
    status = StatusFile(tmp_path / "status.json", print)
    with pytest.raises(MissingTool, match="client.report_to names tensorboard"):
        open_watch(client, small_spec(), status, None, print, RUN)
