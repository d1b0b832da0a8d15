# SPDX-License-Identifier: Apache-2.0
"""FLB itself on the same payload, by `bench.transfer`, with its figures under the peers' names."""

import json
import sys
import tempfile
from pathlib import Path

from bench.peers import processes
from bench.peers.result import Result
from flb.errors import ChildFailed, MissingTool


def run(nodes: int, mib: int, rounds: int, timeout_s: float) -> Result:
    """Measure `rounds` rounds that count. Raises MissingTool and ChildFailed."""
    if not (processes.ROOT / "bench" / "transfer.py").exists():
        raise MissingTool("this clone has no bench/transfer.py", "leave --with-flb away")
    command = [
        sys.executable,
        "-m",
        "bench.transfer",
        "--nodes",
        str(nodes),
        "--mib",
        str(mib),
        "--rounds",
        str(rounds),
    ]
    with tempfile.TemporaryDirectory(prefix="flb-transfer-") as name:
        folder = Path(name)
        with processes.family(folder, processes.peer_environment(Path(sys.executable))) as children:
            children.start("transfer", [*command, "--no-bare", "--json"])
            children.wait_end("transfer", timeout_s)
        return figures((folder / "transfer.log").read_text())


def figures(printed: str) -> Result:
    """The row of FLB from what `bench.transfer --json` printed, its JSON on a line among others. Raises ChildFailed."""
    try:
        told = json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])
        return {
            "round_s": min(figures["round_s"] for figures in told["rounds"][1:]),  # the first one warms up
            "median_round_s": told["round_s"],
            "rounds": [figures["round_s"] for figures in told["rounds"]],
            "server_peak_rss_mib": round(told["aggregator_peak_rss_mib"]),
            "node_peak_rss_mib": round(told["node_peak_rss_mib"]),
        }
    except (ValueError, LookupError, TypeError) as error:
        raise ChildFailed("bench.transfer printed no figures", f"{type(error).__name__}: {error}") from error
