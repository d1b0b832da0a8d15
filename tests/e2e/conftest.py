# SPDX-License-Identifier: Apache-2.0
"""A federation of three real node processes on a tiny random model, run once and looked at by several tests."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flb.merkle import keccak256
from flb_cli.federation import Federation
from tests.chains import cache
from tests.tiny_model import build

NAMES = ("owner", "aggregator", "node-1", "node-2", "node-3")
KEYS = {name: bytes(keccak256(name.encode())) for name in NAMES}
"""Known keys, so that two federations train with the same seeds."""
SETTINGS = {
    "lora": {"r": 2, "alpha": 4, "mode": "alternate"},
    "training": {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64},
    "run": {"steps": 2, "audit": "public", "codec": "bf16"},
}
Make = Callable[[str], Federation]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return build(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three small datasets of different words and sizes."""
    folder = tmp_path_factory.mktemp("data")
    made = []
    for index, word in enumerate(("red", "green", "blue")):
        path = folder / f"node-{index + 1}.jsonl"
        lines = [{"prompt": f"{word} {number}?", "completion": f"{word} is {number}"} for number in range(6 + index)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        made.append(path)
    return made


@pytest.fixture(scope="session")
def make(base: Path, datasets: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes a federation that is not started."""

    def federation(name: str) -> Federation:
        folder = tmp_path_factory.mktemp("federation") / name
        return Federation(folder, base, datasets, SETTINGS, cache(), keys=KEYS, dtype="float32", threads=1)

    return federation


@pytest.fixture(scope="session")
def finished(make: Make) -> Iterator[Federation]:
    """One that ran to its end, chain and aggregator still up."""
    with make("whole") as federation:
        federation.start()
        federation.await_view(lambda view: view.finished, 120)
        for name, child in federation.children.items():
            if name.startswith("node-"):
                child.process.wait(60)
        federation.write_events()
        yield federation
