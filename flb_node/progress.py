# SPDX-License-Identifier: Apache-2.0
"""Local training as people watch it: one line that is written over on a terminal, a plain line now and then elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

EVERY_SECONDS = 10.0
"""Between two plain lines."""
ERASE = "\r\x1b[2K"


@dataclass(slots=True)
class Progress:
    """The progress of one round's training. `say` writes a plain line, `now` gives seconds."""

    stream: TextIO
    say: Callable[[str], None]
    now: Callable[[], float]
    tokens_a_step: float
    """Mean; 0 where it is not known."""
    round: int = 0
    rounds: int = 0
    started: float = 0.0
    said: float = 0.0

    def begin(self, number: int, rounds: int) -> None:
        """Round `number` starts to train, of a run of so many steps."""
        self.round, self.rounds = number, rounds
        self.started = self.said = self.now()

    def step(self, done: int, of: int, loss: float) -> None:
        """Optimizer step `done`, counted from 1, is done."""
        now = self.now()
        seconds = max(now - self.started, 1e-9)
        line = f"round {self.round} of {self.rounds}, step {done} of {of}, loss {loss:.4f}"
        if self.tokens_a_step:
            line += f", {self.tokens_a_step * done / seconds:.0f} tokens/s"
        line += f", {clock(seconds / done * (of - done))} left"
        if self.stream.isatty():
            self.stream.write(ERASE + line + (ERASE if done == of else ""))
            self.stream.flush()
        elif now - self.said >= EVERY_SECONDS and done < of:
            self.said = now
            self.say(line)


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours where there are some."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
