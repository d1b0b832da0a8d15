# SPDX-License-Identifier: Apache-2.0
"""What the node does now, for people: a log line when it changes, and status.json for a live view."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

EVERY_SECONDS = 0.2
"""Progress within one state is written at most so often."""


@dataclass(slots=True)
class StatusFile:
    """Writes `path` at every change; lost in a crash, and that is fine. Details are plain JSON values."""

    path: Path
    log: Callable[[str], None]
    state: str = ""
    written: float = field(default=0.0)
    kept: dict[str, object] = field(default_factory=dict)
    """Details of every line from now on, whatever the state."""
    round: int = 0
    step: int = 0
    """What the node works on, from the last line that said so."""

    def __call__(self, state: str, **details: object) -> None:
        """Say what is done now. A detail named round or step holds until the next one."""
        self.round = int(str(details.get("round", self.round)))
        self.step = int(str(details.get("step", self.step)))
        now = time.monotonic()
        changed = state != self.state
        if not changed and now - self.written < EVERY_SECONDS:
            return
        if changed:
            self.log(" ".join([state, *(f"{key}={value}" for key, value in details.items())]))
        self.state, self.written = state, now
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps({"state": state, "time": time.time(), "pid": os.getpid(), **self.kept, **details}))
        part.replace(self.path)
