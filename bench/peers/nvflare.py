# SPDX-License-Identifier: Apache-2.0
"""NVFlare: its FedAvg in its simulator, where every node is a process over TCP, tensors in PyTorch format."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from bench.peers import environment, processes
from bench.peers.processes import Peak
from bench.peers.result import Result, result
from flb.errors import ChildFailed

VERSION = "2.9.0"
_TORCH = "2.13.0"
_JOB = "bench.peers.apps.nvflare_job"


def run(cache: Path, nodes: int, mib: int, rounds: int, timeout_s: float) -> Result:
    """Measure `rounds` rounds of `nodes` nodes, the first of which warms up. Raises MissingTool and ChildFailed."""
    python = environment.ensure(cache, "nvflare", (f"nvflare=={VERSION}",), torch=_TORCH)
    with tempfile.TemporaryDirectory(prefix="flb-nvflare-") as name:
        folder = Path(name)
        workspace, variables = folder / "workspace", processes.peer_environment(python)
        arguments = [str(workspace), str(nodes), str(mib), str(rounds)]
        with processes.family(folder, variables) as children:
            children.start("job", [str(python), "-m", _JOB, "run", *arguments])
            children.wait_end("job", timeout_s)
        with processes.family(folder, variables) as checker:
            checker.start("check", [str(python), "-m", _JOB, "check", *arguments])
            checker.wait_end("check", timeout_s)
        right = (folder / "check.log").read_text().strip() == "right"
        seconds = round_seconds(next(workspace.rglob("server/log.json")).read_text())
    if len(seconds) != rounds:
        raise ChildFailed(f"NVFlare finished {len(seconds)} of {rounds} rounds", "its figures mean nothing")
    server, clients = _sides(children.peaks, nodes)
    return result("NVFlare", VERSION, seconds, right, server, clients)


def round_seconds(log: str) -> list[float]:
    """Seconds of each round by the server's log of JSON lines.

    From the choice of the nodes, just before the broadcast, to the moment before the averaged model is written to
    disk: writing it is no part of the round of the other systems either.
    """
    taken, begin = [], None
    for line in log.splitlines():
        entry = json.loads(line)
        moment = datetime.strptime(entry["asctime"], "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
        if entry["message"].startswith("Sampled clients"):
            begin = moment
        elif entry["message"].startswith("Start persist model") and begin is not None:
            taken.append((moment - begin).total_seconds())
            begin = None
    return taken


def _sides(peaks: list[Peak], nodes: int) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Peak MiB of the server and of each node.

    The simulator is several processes, one of which runs the server: the largest. The others start it and wait; a
    deployment does not have them, so they do not count.
    """
    simulator = [peak.mib for peak in peaks if any(word.endswith("simulator.simulator") for word in peak.arguments)]
    workers = [
        max((peak.mib for peak in peaks if {"--client", f"site-{number}"} <= set(peak.arguments)), default=0.0)
        for number in range(1, nodes + 1)
    ]
    return {"server": max(simulator, default=0.0)}, [{"worker": mib} for mib in workers]
