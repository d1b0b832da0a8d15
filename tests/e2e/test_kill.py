# SPDX-License-Identifier: Apache-2.0
"""Kill -9 at bad moments: nothing that was done is lost, and the run ends with the same adapter, bit for bit."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flb_cli.federation import Federation
from flb_cli.replay import replay
from flb_cli.verify import from_folder
from tests.e2e.conftest import Make

pytestmark = pytest.mark.e2e


def wait(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def said(federation: Federation, name: str, text: str, times: int = 1) -> bool:
    return (federation.folder / f"{name}.log").read_text().count(text) >= times


def kill(federation: Federation, name: str) -> None:
    """Kill without warning, and start again."""
    child = federation.children[name]
    os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
    federation.spawn(name)


def sealed(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["digest"] for path in sorted(folder.glob("step-*.json"))]


def test_run__killed_everywhere__ends_with_the_same_adapter(finished: Federation, make: Make) -> None:
    with make("killed") as federation:
        federation.start()
        wait(lambda: said(federation, "node-2", "training"))
        kill(federation, "node-2")
        wait(lambda: said(federation, "aggregator", "admitted"))
        kill(federation, "aggregator")
        wait(lambda: said(federation, "node-1", "round 1: delivered"))
        before = sealed(federation.folder / "node-1")
        kill(federation, "node-1")
        wait(lambda: said(federation, "aggregator", "round 2: adapter"))
        kill(federation, "aggregator")
        view = federation.await_view(lambda view: view.finished, 120)
        for name in ("node-1", "node-2", "node-3"):
            assert federation.children[name].process.wait(60) == 0
        assert [roll.adapter_digest for roll in view.rolls] == [roll.adapter_digest for roll in finished.view().rolls]
        assert sealed(federation.folder / "node-1")[: len(before)] == before, "what was sealed is not trained again"
        material = from_folder(federation.folder, None, False)
        assert replay(material.events, material.domain, material.fetch).verdict == "exact"
        assert not list((federation.folder / "aggregator" / "spool").iterdir())
