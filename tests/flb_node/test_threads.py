# SPDX-License-Identifier: Apache-2.0
"""The environment of a training process."""

import subprocess
import sys

import pytest

from flb_node import threads

pytestmark = pytest.mark.unit


def test_environment__default__cores_divided_by_nodes_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    assert threads.environment(None, 3)["OMP_NUM_THREADS"] == "2"
    assert threads.environment(None, 1)["OMP_NUM_THREADS"] == "8"
    assert threads.environment(None, 100)["OMP_NUM_THREADS"] == "1"
    assert threads.environment(5, 3)["OMP_NUM_THREADS"] == "5"


def test_environment__always__waits_passively() -> None:
    settings = threads.environment(None, 1)
    assert (settings["OMP_WAIT_POLICY"], settings["KMP_BLOCKTIME"]) == ("PASSIVE", "0")


def test_configure_threads__fresh_process__in_its_environment() -> None:
    code = "import os; from flb_node.threads import configure_threads as c; s = c(1, 9); assert s.items() <= os.environ.items()"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_configure_threads__torch_already_there__refused() -> None:
    code = "import sys, types; sys.modules['torch'] = types.ModuleType('torch')\n"
    code += "from flb_node.threads import configure_threads; configure_threads(1, 1)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "too late" in done.stderr
