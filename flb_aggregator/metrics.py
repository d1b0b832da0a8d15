# SPDX-License-Identifier: Apache-2.0
"""What a round cost, one JSON line a round in `rounds.jsonl`: bytes, seconds, gas, peak memory."""

import json
import math
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flb.records import Closing
from flb.types import Digest, Manifest, Opening, Round


def peak_rss_mib() -> float:
    """Peak resident memory of this process in MiB.

    Linux's own figure counts from the start of this program; getrusage's also holds what the parent had before.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / (1 << 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / (1 << 10)


@dataclass(slots=True)
class Metrics:
    """Collects the figures of the open round and writes its line when it is sealed. `now` in seconds."""

    path: Path
    now: Callable[[], float]
    started: dict[Round, float] = field(default_factory=dict)
    figures: dict[Round, dict[str, Any]] = field(default_factory=dict)

    def opened(self, opening: Opening) -> None:
        """A round opened."""
        self.started.setdefault(opening.round, self.now())
        self.figure(opening.round)["step"] = opening.step

    def figure(self, number: Round) -> dict[str, Any]:
        """The line of a round in the making."""
        return self.figures.setdefault(number, {"round": number, "bytes_up": 0, "bytes_down": 0})

    def received(self, number: Round, count: int) -> None:
        """Bytes of updates that arrived."""
        self.figure(number)["bytes_up"] += count

    def coded(self, manifest: Manifest, error: float) -> None:
        """What a node says that its codec lost, as a share of the update's norm; JSON has no NaN and no infinity."""
        if not math.isfinite(error):
            return
        self.figure(manifest.round).setdefault("codec_error", {})["0x" + manifest.node.hex()] = float(f"{error:.4g}")

    def uploaded(self, manifest: Manifest, size: int, streamed: float, checked: float, flushed: float) -> None:
        """How long the last stream of an update took: to its last byte, then to check, then for the rest of the flush."""
        times = {
            "bytes": size,
            "stream_s": round(streamed, 4),
            "check_s": round(checked, 4),
            "flush_s": round(flushed, 4),
        }
        self.figure(manifest.round).setdefault("uploads", {})["0x" + manifest.node.hex()] = times

    def sent(self, number: Round, count: int) -> None:
        """Bytes of blobs that left."""
        self.figure(number)["bytes_down"] += count

    def combined(self, opening: Opening, closing: Closing, seconds: float, down: str) -> None:
        """The adapter is made."""
        figure = self.figure(opening.round)
        figure["nodes"] = [
            {"node": "0x" + a.node.hex(), "weight": a.weight, "examples": a.manifest.examples} for a in closing.admitted
        ]
        figure["codec"] = closing.admitted[0].manifest.codec.name.lower()
        figure["down"] = down
        figure["late"] = ["0x" + node.hex() for node in closing.late]
        figure["missing"] = ["0x" + node.hex() for node in closing.missing]
        figure["aggregate_s"] = round(seconds, 4)

    def told(self, number: Round, figures: Mapping[str, float]) -> str:
        """Figures that the making of a round gave: what its privacy came to, or its gap."""
        if "releases" not in figures:
            return self.gap(number, figures)
        self.figure(number)["privacy"] = dict(figures)
        bound = f"epsilon {figures['epsilon']:,.4g}" if "epsilon" in figures else "no epsilon that bounds anything"
        return (
            f"round {number}: the run is at {bound}, delta {figures['delta']:g}, after {figures['releases']:g} releases"
        )

    def gap(self, number: Round, figures: Mapping[str, float]) -> str:
        """How far the round's adapter is from the mean of the nodes' products: writes it down, and says it in words."""
        with self.path.with_name("gaps.jsonl").open("a") as file:
            file.write(json.dumps({"round": number, **figures}, sort_keys=True) + "\n")
        cut = f", {figures['lost_energy']:.2g} of the energy cut" if figures["lost_energy"] else ""
        return f"round {number}: {figures['gap']:.2g} of its move away from the mean product{cut}"

    def sealed(self, number: Round, what: str, tx: Digest, gas_used: int) -> None:
        """The transaction that ended the round is mined: write its line."""
        figure = self.figure(number)
        figure |= {
            "ended_by": what,
            "tx": "0x" + tx.hex(),
            "gas_used": gas_used,
            "wall_s": round(self.now() - self.started.get(number, self.now()), 3),
            "peak_rss_mib": round(peak_rss_mib(), 1),
        }
        with self.path.open("a") as file:
            file.write(json.dumps(figure, sort_keys=True) + "\n")
        self.figures.pop(number, None)
