# SPDX-License-Identifier: Apache-2.0
"""Two processes on a CPU train one adapter together, and a run that can't be split is refused."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flb.errors import ConfigError
from flb_node import ranks
from tests import tiny_model
from tests.flb_node.test_trainer import TRAINING

pytestmark = pytest.mark.model


def test_train__two_processes__nearly_what_one_does_and_the_same_bits_after_a_failure_and_a_pause(
    tmp_path: Path,
) -> None:
    tiny_model.build(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "tests.flb_node.two_ranks", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["together"] == pytest.approx(found["alone"], rel=1e-3)
    assert found["same"] and found["apart"] < 0.2
    assert found["seen"] == [1, 2, 3, 4, 5, 6], "rank 0 reports alone"
    assert "optimizer step" in found["failed"], "and the round after it is as good as the one before"
    assert found["ended"] == "a process that trains along has ended"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "changes", [{"batch_size": 3}, {"fedprox_mu": 0.1}, {"optimizer_state": "keep"}, {"local_epochs": 1}]
)
def test_split__what_two_processes_cannot_share__config_error(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="client.processes"):
        ranks.split(replace(TRAINING, **changes), 2)  # type: ignore[arg-type]


def test_split__batch__is_shared() -> None:
    assert ranks.split(TRAINING, 2) == replace(TRAINING, batch_size=2)
