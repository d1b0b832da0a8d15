# SPDX-License-Identifier: Apache-2.0
"""Two processes on a CPU train one adapter together, and a run that can't be split is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flb.errors import ConfigError
from flb_node import ranks
from tests import tiny_model
from tests.flb_node.test_trainer import TRAINING

pytestmark = pytest.mark.model


def two_ranks(folder: Path, *what: str) -> Any:
    """What the program prints about a tiny model that is built in `folder`; it fails at nothing unforeseen."""
    tiny_model.build(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.flb_node.two_ranks", str(folder), *what],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_train__two_processes__nearly_what_one_does_and_the_same_bits_after_a_failure_and_a_pause(
    tmp_path: Path,
) -> None:
    found = two_ranks(tmp_path)
    assert found["together"] == pytest.approx(found["alone"], rel=1e-3)
    assert found["on_top"][1] == pytest.approx(found["on_top"][0], rel=1e-3), "with a frozen part on both"
    assert found["on_top"][0][0] < found["alone"][0]
    assert found["same"] and found["apart"] < 0.2
    assert found["seen"] == [1, 2, 3, 4, 5, 6], "rank 0 reports alone"
    assert "optimizer step" in found["failed"], "and the round after it is as good as the one before"
    assert found["ended"] == "a process that trains along has ended"


def test_make_trainer__two_processes__train_and_end_with_the_node(tmp_path: Path) -> None:
    assert two_ranks(tmp_path, "node") == {"moved": True, "files": 1, "before": 1, "after": 0}


@pytest.mark.parametrize(
    "changes", [{"batch_size": 3}, {"fedprox_mu": 0.1}, {"optimizer_state": "keep"}, {"local_epochs": 1}]
)
def test_split__what_two_processes_cannot_share__config_error(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="client.processes"):
        ranks.split(replace(TRAINING, **changes), 2)  # type: ignore[arg-type]


def test_split__batch__is_shared() -> None:
    assert ranks.split(TRAINING, 2) == replace(TRAINING, batch_size=2)
