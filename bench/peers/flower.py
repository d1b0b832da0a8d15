# SPDX-License-Identifier: Apache-2.0
"""Flower: SuperLink, SuperNodes and the ServerApp and ClientApp processes that they start, insecure and in memory."""

import json
import tempfile
from pathlib import Path

from bench.peers import environment, processes
from bench.peers.processes import Peak
from bench.peers.result import Result, result
from flb.errors import ChildFailed

VERSION = "1.42.0"
_APP = Path(__file__).parent / "apps" / "flower"
_SETUP_S = 120.0


def run(cache: Path, nodes: int, mib: int, rounds: int, timeout_s: float) -> Result:
    """Measure `rounds` rounds of `nodes` nodes, the first of which warms up. Raises MissingTool and ChildFailed."""
    python = environment.ensure(cache, "flower", (f"flwr=={VERSION}",))
    programs = python.parent
    with tempfile.TemporaryDirectory(prefix="flb-flower-") as name:
        folder = Path(name)
        port, done = processes.free_port(), folder / "result.json"
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        variables = processes.peer_environment(python) | {
            "FLWR_HOME": str(folder),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        with processes.family(folder, variables) as children:
            link = [str(programs / "flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"]
            children.start("superlink", [*link, "--port", str(port)])
            children.wait_port(port, "superlink", _SETUP_S)
            node = [str(programs / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{port}"]
            for number in range(1, nodes + 1):
                own = ["--port", str(processes.free_port()), "--node-config", f"number={number}"]
                children.start(f"supernode-{number}", [*node, *own])
            settings = f'nodes={nodes} mib={mib} rounds={rounds} result="{done}"'
            children.start("flwr-run", [str(programs / "flwr"), "run", str(_APP), "bench", "--run-config", settings])
            children.wait_end("flwr-run", _SETUP_S)
            children.wait_file(done, "superlink", timeout_s)
        told = json.loads(done.read_text())
        server = _kinds(children.peaks, "superlink")
        clients = [_kinds(children.peaks, f"supernode-{number}") for number in range(1, nodes + 1)]
    if "error" in told:
        raise ChildFailed("Flower's ServerApp failed", told["error"])
    return result("Flower", VERSION, told["rounds"], told["right"], server, clients)


def _kinds(peaks: list[Peak], member: str) -> dict[str, float]:
    """Peak MiB of each program of one member; a ClientApp lives for one message, so of a kind the largest counts."""
    found: dict[str, float] = {}
    for peak in peaks:
        # programs are scripts: python3 /path/flwr-clientapp ...
        program = next(
            (Path(word).name for word in peak.arguments if Path(word).name.startswith(("flower-", "flwr-"))), ""
        )
        if peak.member == member and program:
            found[program] = max(peak.mib, found.get(program, 0.0))
    return found
