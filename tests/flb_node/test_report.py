# SPDX-License-Identifier: Apache-2.0
"""Reports through transformers' callbacks: one run, every step by its number in the run, a missing package named."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, TrainerCallback
from transformers.integrations import integration_utils

from flb.errors import ConfigError, MissingTool
from flb_node.report import open_report

pytestmark = pytest.mark.model


class Model:
    config = LlamaConfig(num_hidden_layers=1)


class Recorder(TrainerCallback):
    """An integration that notes what it hears, as those of transformers are written."""

    heard: list[tuple[Any, ...]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.heard.append(("begin", args.run_name, state.max_steps, model.config.num_hidden_layers))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        assert state.is_world_process_zero
        self.heard.append((state.global_step, logs))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.heard.append(("end",))


def test_report__registered_integration__one_run_over_all_rounds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    Recorder.heard.clear()
    report = open_report(["recorder"], tmp_path, "flb-1")
    report.begin(Model(), 4)
    for step in (1, 2, 3):
        report.log({"loss": float(step)}, step)
    report.log({"held_out/loss": 2.0}, 2)
    report.end()
    assert Recorder.heard == [
        ("begin", "flb-1", 4, 1), (1, {"loss": 1.0}), (2, {"loss": 2.0}), (3, {"loss": 3.0}),
        (2, {"held_out/loss": 2.0}), ("end",),
    ]  # fmt: skip


def test_report__unknown_name__the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"client.report_to names 'tensorbord': choose from .*tensorboard"):
        open_report(["tensorbord"], tmp_path, "flb-1")


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_report__package_missing__one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr(integration_utils, f"is_{name}_available", lambda: False)
    with pytest.raises(MissingTool, match=f"the package {name} is not installed: install it with pip install {name}"):
        open_report([name], tmp_path, "flb-1")


def test_report__tensorboard_or_what_stands_for_it__values_at_their_steps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the package the event files are read back; without it the callback of transformers writes to a writer of the
    same methods."""
    if importlib.util.find_spec("tensorboard") is not None:
        first, second = (open_report(["tensorboard"], tmp_path, "flb-1") for _ in range(2))
        for start, report in ((0, first), (2, second)):  # the second as after a restart
            report.begin(Model(), 4)
            for step in (1, 2):
                report.log({"loss": 1.0 / (start + step)}, start + step)
            report.end()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
        return

    class Writer:
        def __init__(self, log_dir: str) -> None:
            self.file = Path(log_dir) / "events.jsonl"
            self.file.parent.mkdir(parents=True)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            with self.file.open("a") as file:
                file.write(json.dumps([name, value, step]) + "\n")

        def __getattr__(self, name: str) -> Any:
            return lambda *_: None

    class Stand(integration_utils.TensorBoardCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._SummaryWriter, self.tb_writer, self.logging_dir = Writer, None, None

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "tensorboard", Stand)
    monkeypatch.setattr(integration_utils, "is_tensorboard_available", lambda: True)
    report = open_report(["tensorboard"], tmp_path, "flb-1")
    report.begin(Model(), 4)
    report.log({"loss": 0.5}, 3)
    report.end()
    assert (tmp_path / "tensorboard" / "events.jsonl").read_text() == '["train/loss", 0.5, 3]\n'
