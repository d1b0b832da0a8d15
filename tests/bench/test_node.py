# SPDX-License-Identifier: Apache-2.0
"""The bench of the node runs on a tiny model and prints every figure that it promises; how large they are is not said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny_model

pytestmark = pytest.mark.model

STEPS = 2
FIGURES = {
    "trl_step_s", "flb_step_s", "overhead", "around_steps", "call_against_trl_steps", "tokens_ratio", "round_start_s",
    "peak_rss_mib", "trl_peak_rss_mib", "memory_ratio",
}  # fmt: skip


def test_main__tiny_model__prints_all_figures_and_what_missed_its_target(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.node", "--json", "--base", str(tiny_model.build(tmp_path / "base"))]
    command += ["--threads", "1", "--repeats", "1", "--steps", str(STEPS), "--cpu"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=250)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert set(found) == FIGURES | {"bench", "machine", "settings", "targets", "missed", "ok"}
    assert (found["bench"], found["settings"]["steps"], found["settings"]["model"]) == ("node", STEPS, "base")
    assert found["machine"]["threads"] == 1
    assert all(isinstance(found[name], float) for name in FIGURES)
    assert min(found[name] for name in ("trl_step_s", "flb_step_s", "peak_rss_mib", "trl_peak_rss_mib")) > 0
    assert set(found["targets"]) <= FIGURES
    assert found["ok"] is (not found["missed"]) is (done.returncode == 0)
