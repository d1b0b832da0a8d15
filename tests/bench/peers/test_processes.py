# SPDX-License-Identifier: Apache-2.0
"""Nothing that was started outlives its family, and the largest moment of each process is seen."""

import sys
import time
from pathlib import Path

import psutil
import pytest

from bench.peers import processes
from flb.errors import ChildFailed

pytestmark = pytest.mark.e2e

ORPHAN = """
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
pathlib.Path("made").write_text(str(child.pid))
"""
LARGE_ONCE = """
import pathlib, time
held = bytearray(200 << 20)
del held
pathlib.Path("made").write_text("1")
time.sleep(600)
"""


def test_family__closed__ends_an_orphan_in_another_session(tmp_path: Path) -> None:
    with processes.family(tmp_path, {}) as children:
        children.start("parent", [sys.executable, "-c", ORPHAN])
        children.wait_end("parent", 60)
        orphan = psutil.Process(int((tmp_path / "made").read_text()))
        assert orphan.is_running()
    assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_family__memory_that_was_given_back__is_in_the_peak(tmp_path: Path) -> None:
    with processes.family(tmp_path, {}) as children:
        children.start("large", [sys.executable, "-c", LARGE_ONCE])
        children.wait_file(tmp_path / "made", "large", 60)
        while not any(peak.mib >= 200 for peak in children.peaks):
            time.sleep(0.05)
    assert {peak.member for peak in children.peaks} == {"large"}


def test_family__child_fails__names_it_and_its_last_line(tmp_path: Path) -> None:
    with (
        processes.family(tmp_path, {}) as children,
        pytest.raises(ChildFailed, match="broken ended with code 1: its last line was 'no such luck'"),
    ):
        children.start("broken", [sys.executable, "-c", "raise SystemExit('no such luck')"])
        children.wait_end("broken", 60)
