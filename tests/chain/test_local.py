# SPDX-License-Identifier: Apache-2.0
"""The local chain as a child process: it starts, it is refused, it leaves nothing behind."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from flb.chain import local
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.errors import ChildFailed, PortTaken, Refused
from flb.types import Address
from tests.chains import ROOT, cache, serving

pytestmark = pytest.mark.chain


def group(leader: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def assert_gone(leader: int) -> None:
    """A killed process takes a moment to go."""
    deadline = time.monotonic() + 5
    while group(leader):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_start__port_in_use__is_port_taken_and_starts_nothing(tmp_path: Path) -> None:
    folder = local.install(cache(), print)
    with socket.create_server(("127.0.0.1", 0)) as taken, (tmp_path / "log").open("wb") as log:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} of 127.0.0.1 is taken: .* change --port"):
            local.start(folder, log, port)
    assert (tmp_path / "log").read_bytes() == b""


def test_stop__running_node__leaves_no_process_of_its_group(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        chain = local.start(local.install(cache(), print), log, block_ms=100)
    rpc = Rpc(chain.url)
    try:
        assert rpc.chain_id() == local.CHAIN_ID
        assert group(chain.process.pid)
        sender = Sender(rpc, secrets.token_bytes(32))
        local.fund(rpc, sender.address, ether=3)
        assert int(rpc.call("eth_getBalance", "0x" + sender.address.hex(), "latest"), 16) == 3 * 10**18
        before = rpc.block_number()
        deadline = time.monotonic() + 10
        while rpc.block_number() < before + 2:
            assert time.monotonic() < deadline, "with block_ms blocks come without transactions"
    finally:
        began = time.monotonic()
        chain.stop()
    assert time.monotonic() - began < 5
    assert chain.process.returncode is not None
    assert_gone(chain.process.pid)
    chain.stop()  # once more does no harm


UNTIED = """
import sys
from pathlib import Path
from flb.chain import local
with open(sys.argv[2], "wb") as log:
    print(local.start(Path(sys.argv[1]), log).process.pid)
"""


def test_start__untied__outlives_the_process_that_started_it(tmp_path: Path) -> None:
    """`flb demo --keep` leaves its chain running."""
    command = [sys.executable, "-c", UNTIED, str(local.install(cache(), print)), str(tmp_path / "log")]
    node = psutil.Process(int(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60).stdout))
    try:
        with pytest.raises(psutil.TimeoutExpired):
            node.wait(0.5)
        # `wait` also ends early for a zombie: this one must be working
        assert node.status() != psutil.STATUS_ZOMBIE
    finally:
        node.kill()
        assert_gone(node.pid)


def test_start__tied_child_that_ends_at_once__is_not_waited_for(tmp_path: Path) -> None:
    """The pipe that ties the node must not keep it alive."""
    (tmp_path / local.CLI).parent.mkdir(parents=True)
    (tmp_path / local.CLI).write_text("")
    began = time.monotonic()
    with (tmp_path / "log").open("wb") as log, pytest.raises(ChildFailed):
        local.start(tmp_path, log, tied=True)
    assert time.monotonic() - began < 10


def test_start__asked_to_stop_while_starting__ends_the_child(tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    before = {child.pid for child in psutil.Process().children()}
    with (tmp_path / "log").open("wb") as log, pytest.raises(KeyboardInterrupt):
        local.start(local.install(cache(), print), log, stop=stop)
    assert {child.pid for child in psutil.Process().children()} == before


def test_start__child_that_ends_at_once__names_its_log(tmp_path: Path) -> None:
    (tmp_path / local.CLI).parent.mkdir(parents=True)
    (tmp_path / local.CLI).write_text("process.exit(3)")
    with (tmp_path / "log").open("wb") as log, pytest.raises(ChildFailed, match=f"its log is {tmp_path}/log"):
        local.start(tmp_path, log)


def test_end_group__child_that_ignores_the_request__is_killed_with_its_children() -> None:
    script = "trap '' TERM; sleep 60 & echo ready; wait; wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    local.end_group(process, seconds=0.3)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert_gone(process.pid)


def test_end_group__leader_that_leaves_a_child_behind__ends_the_child_too() -> None:
    script = "(trap '' TERM; echo ready; exec sleep 60) & trap 'exit 0' TERM; while :; do wait; done"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    local.end_group(process)
    process.stdout.close()
    assert_gone(process.pid)


def test_end_group__child_that_was_collected__signals_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be a stranger's by now."""
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait(5)
    monkeypatch.setattr(os, "killpg", lambda number, _: pytest.fail(f"group {number} was signalled"))
    local.end_group(process)


def test_fund__other_chain__is_refused() -> None:
    with (
        serving(lambda _: b'{"jsonrpc": "2.0", "id": 1, "result": "0x1"}') as url,
        pytest.raises(Refused, match="chain 1"),
    ):
        local.fund(Rpc(url), Address(b"\x0a" * 20))


# CI skips no test, so what takes minutes is not defined where it is not asked for
if os.environ.get("FLB_FULL"):

    def test_install__empty_cache__gives_a_folder_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = tmp_path / "source"
        ignored = shutil.ignore_patterns("node_modules", "artifacts", "cache")
        shutil.copytree(local.sources(), source, ignore=ignored)
        monkeypatch.setattr(local, "sources", lambda: source)
        said: list[str] = []
        stop = threading.Event()
        stop.set()
        with pytest.raises(KeyboardInterrupt):
            local.install(tmp_path / "cache", said.append, stop)
        assert list((tmp_path / "cache").iterdir()) == [], "a stopped installation leaves nothing"
        folder = local.install(tmp_path / "cache", said.append)
        assert len(said) == 2
        assert folder.parent == tmp_path / "cache"
        assert local.install(tmp_path / "cache", said.append) == folder
        assert len(said) == 2
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]
        with (tmp_path / "log").open("wb") as log, local.running(folder, log) as chain:
            assert Rpc(chain.url).chain_id() == local.CHAIN_ID
