# SPDX-License-Identifier: Apache-2.0
"""The two example scripts, as they stand: one trains alone, the other as a node of a real run."""

import difflib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from flb_cli.federation import Federation
from tests.chains import cache
from tests.e2e.conftest import KEYS

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = {
    "training": {"local_steps": 2, "batch_size": 2, "learning_rate": 0.001, "max_length": 64},
    "run": {"steps": 2, "min_nodes": 2, "audit": "public"},
}
KEYS_AND_FOLDER = {"keystore": "keys/node-1.json", "password_file": "keys/node-1.password", "workdir": "node-1"}


def prepare(folder: Path, base: Path, dataset: Path) -> Path:
    """A folder as a user has it, with model and data."""
    folder.mkdir(exist_ok=True)
    (folder / "model").symlink_to(base)
    shutil.copy(dataset, folder / "data.jsonl")
    return folder


def configure(path: Path, **client: object) -> None:
    """Change settings of a node."""
    config = yaml.safe_load(path.read_text())
    config["client"] |= client
    path.write_text(yaml.safe_dump(config))


def command(script: str) -> list[str]:
    return [sys.executable, str(EXAMPLES / script)]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def attached(base: Path, datasets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """A run of two nodes that has ended: an ordinary one, and the script."""
    folder = tmp_path_factory.mktemp("attached") / "run"
    with Federation(folder, base, datasets[:2], SETTINGS, cache(), keys=KEYS, dtype="float32", threads=1) as federation:
        federation.start_chain()
        federation.deploy()
        federation.spawn("aggregator")
        shared = folder / "shared.jsonl"
        shared.write_text('{"prompt": "grey 1?", "completion": "grey is 1"}\n')
        configure(folder / "node-2.yaml", held_out=0.3, shared_held_out=str(shared))
        federation.spawn("node-2")
        script = prepare(folder / "script", base, datasets[0])
        shutil.copy(folder / "node-1.yaml", script / "config.yaml")
        own = {name: f"../{path}" for name, path in KEYS_AND_FOLDER.items()}
        configure(script / "config.yaml", **own, shared_held_out=str(shared))
        federation.spawn_command("node-1", command("own_trainer.py"), cwd=script, env=environment())
        federation.await_members()
        assert federation.owner is not None
        federation.owner.start()
        federation.await_view(lambda view: view.finished, 120)
        for name in ("node-1", "node-2"):
            federation.children[name].process.wait(60)
        yield federation


def test_own_trainer__beside_the_plain_script__differs_by_two_lines() -> None:
    plain, own = ((EXAMPLES / name).read_text().splitlines() for name in ("own_trainer_plain.py", "own_trainer.py"))
    changes = [line for line in difflib.ndiff(plain, own) if line[:2] in ("- ", "+ ")]
    assert changes == ["+ import flb_node", '+ flb_node.attach(trainer, run="config.yaml")']


def test_own_trainer_plain__alone__saves_an_adapter(base: Path, datasets: list[Path], tmp_path: Path) -> None:
    folder = prepare(tmp_path / "plain", base, datasets[0])
    subprocess.run(command("own_trainer_plain.py"), cwd=folder, env=environment(), check=True, capture_output=True)
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert any(np.abs(value).max() > 0 for name, value in saved.items() if ".lora_B." in name)


def test_own_trainer__real_run__delivers_every_round_and_holds_the_last_adapter(attached: Federation) -> None:
    log = attached.children["node-1"].log.read_text()
    assert attached.children["node-1"].process.returncode == 0, log
    rolls = attached.view().rolls
    assert [roll.accepted for roll in rolls] == [2, 2]
    assert len(list((attached.folder / "node-1").glob("receipt-*.json"))) == 2
    published = load_file(attached.folder / "aggregator" / "adapters" / "step-0002" / "adapter_model.safetensors")
    saved = load_file(attached.folder / "script" / "adapter" / "adapter_model.safetensors")
    assert sorted(saved) == sorted(published)
    assert all(saved[name].tobytes() == published[name].tobytes() for name in saved)
    assert json.loads((attached.folder / "node-1" / "status.json").read_text())["state"] == "finished"


def metrics(federation: Federation, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (federation.folder / name / "metrics.jsonl").read_text().splitlines()]


def test_evaluation__both_nodes__measure_each_adapter_and_agree_on_the_shared_examples(attached: Federation) -> None:
    mine, others = metrics(attached, "node-1"), metrics(attached, "node-2")
    assert [line["step"] for line in mine] == [line["step"] for line in others] == [0, 1, 2]
    view = attached.view()
    assert [line["adapter"] for line in mine[1:]] == [roll.adapter_digest.hex() for roll in view.rolls]
    for one, two in zip(mine, others, strict=True):
        assert one["shared"].pop("file") == two["shared"].pop("file")
        assert one["shared"] == pytest.approx(two["shared"], rel=1e-5)
        assert "held_out" not in one and two["held_out"]["tokens"] > 0
    best = min(mine, key=lambda line: line["shared"]["loss"])
    assert json.loads((attached.folder / "node-1" / "best.json").read_text())["adapter"] == best["adapter"]
    assert (attached.folder / "node-1" / "best" / "adapter_model.safetensors").exists()
    status = json.loads((attached.folder / "node-2" / "status.json").read_text())
    assert status["held_out"]["step"] == 2


def test_held_out__share_of_the_dataset__is_neither_trained_nor_counted(attached: Federation) -> None:
    members = attached.view().members.values()
    assert sorted(member.records for member in members) == [5, 6], "two of seven are held out"


def test_own_trainer__started_after_the_end__returns_with_the_last_adapter(attached: Federation) -> None:
    folder = attached.folder / "script"
    before = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(folder / "adapter")
    done = subprocess.run(
        command("own_trainer.py"), cwd=folder, env=environment(), check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "adapter" / "adapter_model.safetensors").read_bytes() == before


def test_own_trainer__run__verifies(attached: Federation) -> None:
    attached.write_events()
    done = subprocess.run(
        [sys.executable, "-m", "flb_cli.main", "verify", str(attached.folder), "--offline", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["verdict"] == "exact", done.stderr
