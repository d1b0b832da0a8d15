# SPDX-License-Identifier: Apache-2.0
"""What a simulated run shows on stderr: a progress bar on a terminal, a line a round elsewhere."""

import sys
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class View:
    """Progress over all turns of all nodes; a context, so that the bar goes whatever happens."""

    def __init__(self, steps: int, nodes: int, console: Console | None = None) -> None:
        self.console = console or Console(file=sys.stderr)
        self.steps, self.nodes = steps, nodes
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(), console=self.console, transient=True, disable=not self.console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("", total=steps * nodes)

    def __enter__(self) -> "View":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.bar.stop()

    def say(self, text: str) -> None:
        """What happens now."""
        self.bar.update(self.task, description=text)

    def turn(self, step: int, number: int) -> None:
        """A node's turn begins."""
        self.say(f"round {step} of {self.steps}, node {number}")
        self.bar.advance(self.task)

    def sealed(self, line: dict[str, Any]) -> None:
        """A round is sealed."""
        self.bar.update(self.task, completed=line["step"] * self.nodes)
        loss = f", loss {line['eval_loss']:.4f}" if line["eval_loss"] is not None else ""
        refused = f", {line['rejected']} refused" if line["rejected"] else ""
        self.console.print(
            f"round {line['round']}: {line['accepted']} updates{refused}{loss}", highlight=False, markup=False
        )
