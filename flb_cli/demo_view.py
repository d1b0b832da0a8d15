# SPDX-License-Identifier: Apache-2.0
"""What the demo shows: a live table on a terminal, plain lines elsewhere, and the summary at the end."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flb_cli import privacy_report

BAR = 10


def read_status(path: Path) -> dict[str, Any]:
    """A node's status.json; empty before it wrote one."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def in_words(status: dict[str, Any]) -> str:
    """A node's state in a few words."""
    state = str(status.get("state", "starting"))
    if state == "training" and status.get("of"):
        done, of = int(status.get("local_step", 0)), int(status["of"])
        loss = f" loss {status['loss']:.2f}" if "loss" in status else ""
        bar = "█" * (done * BAR // of) + "░" * (BAR - done * BAR // of)
        return f"training {bar} {done}/{of}{loss}"
    if state == "uploading" and status.get("size"):
        return f"uploading {100 * int(status.get('sent', 0)) // int(status['size'])} %"
    if state == "waiting" and status.get("reason"):
        return f"waiting: {status['reason']}"
    return state


def mib(count: int) -> str:
    """Bytes for people."""
    return f"{count / (1 << 20):.1f} MiB"


@dataclass(slots=True)
class View:
    """Everything that is shown; `console` writes to stderr."""

    console: Console
    topics: Sequence[Sequence[str]]
    started: float = field(default_factory=time.monotonic)
    live: Live | None = None
    phase: str = ""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    losses: dict[int, float] = field(default_factory=dict)
    _said: set[str] = field(default_factory=set)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Keep the live table up, where there is a terminal."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, refresh_per_second=5, transient=True) as self.live:
            yield
        self.live = None

    def say(self, text: str) -> None:
        """One step of the set-up, said once."""
        self.phase = text
        self._once(text)
        self.refresh()

    def _once(self, text: str) -> None:
        if self.live is None and text not in self._said:
            self._said.add(text)
            self.console.print(
                f"[{time.monotonic() - self.started:6.1f} s] {text}", highlight=False, markup=False, soft_wrap=True
            )

    def update(self, nodes: list[dict[str, Any]], rounds: list[dict[str, Any]], losses: dict[int, float]) -> None:
        """New figures."""
        self.nodes, self.rounds, self.losses = nodes, rounds, dict(losses)
        for line in rounds:
            loss = self.losses.get(int(line["step"]))
            if loss is not None:
                self._once(
                    f"round {line['round']}: {len(line['nodes'])} updates, {mib(line['bytes_up'])} up, loss {loss:.3f}"
                )
        if 0 in self.losses:
            self._once(f"held-out loss of the base model: {self.losses[0]:.3f}")
        self.refresh()

    def refresh(self) -> None:
        """Draw."""
        if self.live is not None:
            self.live.update(self.draw())

    def draw(self) -> Group:
        """The table of nodes and the table of rounds."""
        nodes = Table(title="nodes", title_justify="left", expand=False)
        for name in ("node", "its text", "now"):
            nodes.add_column(name)
        for index, topics in enumerate(self.topics):
            status = self.nodes[index] if index < len(self.nodes) else {}
            nodes.add_row(
                f"node-{index + 1}", ", ".join(topics[:3]) + (", …" if len(topics) > 3 else ""), in_words(status)
            )
        elapsed = Text(f"{self.phase}   {time.monotonic() - self.started:.0f} s", style="dim")
        return Group(elapsed, nodes, self.draw_rounds())

    def draw_rounds(self) -> Table:
        """One line a sealed round."""
        table = Table(title="rounds", title_justify="left", expand=False)
        for name in ("round", "updates", "up", "down", "combine", "gas", "held-out loss"):
            table.add_column(name, justify="right")
        if 0 in self.losses:
            table.add_row("base", "", "", "", "", "", f"{self.losses[0]:.3f}")
        for line in self.rounds:
            loss = self.losses.get(int(line["step"]))
            table.add_row(
                str(line["round"]), str(len(line["nodes"])), mib(line["bytes_up"]), mib(line["bytes_down"]),
                f"{line['aggregate_s']:.2f} s", f"{line['gas_used']:,}", f"{loss:.3f}" if loss is not None else "…",
            )  # fmt: skip
        return table


def summary(console: Console, result: dict[str, Any], view: View, answers: Sequence[tuple[str, str, str]]) -> None:
    """The end of the demo, for people."""
    console.print(view.draw_rounds())
    before, after = result["base_eval_loss"], result["final_eval_loss"]
    console.print(
        f"Held-out loss {before:.3f} before, {after:.3f} after ({100 * (after / before - 1):+.1f} %), "
        f"in {result['wall_s']:.0f} s.\n",
        highlight=False,
    )
    table = Table(title="answers: the style changes, the facts do not improve at this size", title_justify="left")
    for name in ("prompt", "base", "tuned"):
        table.add_column(name, overflow="fold", ratio=1 if name == "prompt" else 2)
    for row in answers:
        table.add_row(*(Text(part) for part in row))
    console.print(table)
    for name, value in (
        *in_trouble(result),
        ("contract", f"{result['run']} on chain {result['chain_id']}"),
        ("nodes", ", ".join(result["nodes"])),
        ("adapter", result["adapter_dir"]),
        ("payout", paid(result["payout"])),
        ("privacy", privacy_report.in_words(result["privacy"])),
        ("verify", f"{result['verify']}   (again: flb verify {result['workdir']})"),
    ):
        console.print(f"{name:9} {value}", highlight=False, soft_wrap=True)


def paid(payout: dict[str, Any]) -> str:
    """What one node's payee claimed, for people; the demo's token has 18 decimals."""
    amount = int(payout["amount"]) / 10**18
    return f"{amount:,.2f} test tokens for node {payout['node']} to {payout['payee']}, transaction {payout['tx']}"


def in_trouble(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What `--kill` and `--tamper` did, for people."""
    if "kill" in result:
        kill = result["kill"]
        if kill is None:
            yield "kill", "no upload could be interrupted: each was over before it was seen"
        else:
            went_on = "went on from there" if kill["went_on"] else "did not go on from there"
            yield "kill", f"round {kill['round']}: at byte {kill['byte']:,} of {kill['size']:,}; the upload {went_on}"
    if "tamper" in result:
        bit = result["tamper"]
        named = "named" if bit["named"] else "did not name"
        yield (
            "tamper",
            f"one bit of an update; verify {named} round {bit['round']}, node {bit['node']}, {bit['tensor']}",
        )
        yield "restored", f"the bit is put back: {bit['restored']}"


def make_console(as_json: bool) -> Console:
    """Progress goes to stderr, always; without a terminal it is plain."""
    return Console(file=sys.stderr, quiet=False, force_terminal=False if as_json else None)
