# SPDX-License-Identifier: Apache-2.0
"""The demo's judge: an evaluator process that is asked from a thread, so that the live view goes on meanwhile."""

import json
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flb.errors import ChildFailed
from flb_cli.federation import Federation


@dataclass(slots=True)
class Evaluator:
    """Losses by step (0 is the base) and answers by step, as they arrive."""

    federation: Federation
    base: Path
    held_out: Path
    max_length: int
    losses: dict[int, float] = field(default_factory=dict)
    answers: dict[int, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    failure: str | None = None
    process: subprocess.Popen[bytes] | None = None
    _requests: "queue.Queue[tuple[int, Path | None, list[str]] | None]" = field(default_factory=queue.Queue)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the process and the thread that talks to it."""
        command = [
            sys.executable, "-m", "flb_node.evaluate", "--base", str(self.base), "--data", str(self.held_out),
            "--max-length", str(self.max_length), "--threads", "1",
        ]  # fmt: skip
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = self.federation.spawn_command("evaluator", command, **pipes).process
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self, step: int, adapter: Path | None, prompts: list[str]) -> None:
        """Judge an adapter folder, or the base; the result appears in `losses`."""
        self._requests.put((step, adapter, prompts))

    def finish(self) -> None:
        """Wait for all answers and end the process. Raises ChildFailed."""
        self._requests.put(None)
        assert self._thread is not None and self.process is not None
        self._thread.join()
        if self.failure:
            raise ChildFailed(
                f"the evaluator failed: {self.failure}", f"its log is {self.federation.folder}/evaluator.log"
            )

    def _serve(self) -> None:
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        while (request := self._requests.get()) is not None:
            step, adapter, prompts = request
            line = json.dumps({"adapter": str(adapter) if adapter else None, "prompts": prompts})
            try:
                process.stdin.write(line.encode() + b"\n")
                process.stdin.flush()
                answer: Any = json.loads(process.stdout.readline())
            except (OSError, ValueError) as error:
                self.failure = f"it ended early ({error})"
                return
            if "error" in answer:
                self.failure = str(answer["error"])
                return
            self.losses[step], self.answers[step] = answer["loss"], answer["answers"]
            self.seconds += answer["seconds"]
        process.stdin.close()
        process.wait()
