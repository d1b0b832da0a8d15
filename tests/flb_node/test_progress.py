# SPDX-License-Identifier: Apache-2.0
"""The line of progress, on a terminal and elsewhere, by a clock of the test."""

import io

import pytest

from flb_node.progress import ERASE, Progress, clock

pytestmark = pytest.mark.unit


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, seconds_a_step: float, steps: int = 4, tokens: float = 100.0) -> list[str]:
    said: list[str] = []
    time = [0.0]
    progress = Progress(stream, said.append, lambda: time[0], tokens)
    progress.begin(2, 3)
    for step in range(1, steps + 1):
        time[0] += seconds_a_step
        progress.step(step, steps, 2.5)
    return said


def test_progress__terminal__one_line_written_over_and_removed_at_the_end() -> None:
    stream = Terminal()
    assert run(stream, 2.0) == []
    text = stream.getvalue()
    assert "\n" not in text and text.count(ERASE) == 5 and text.endswith(ERASE)
    assert text.startswith(ERASE + "round 2 of 3, step 1 of 4, loss 2.5000, 50 tokens/s, 0:06 left")


def test_progress__not_a_terminal__a_plain_line_every_ten_seconds() -> None:
    stream = io.StringIO()
    assert run(stream, 6.0, steps=5) == [
        "round 2 of 3, step 2 of 5, loss 2.5000, 17 tokens/s, 0:18 left",
        "round 2 of 3, step 4 of 5, loss 2.5000, 17 tokens/s, 0:06 left",
    ]
    assert stream.getvalue() == ""


def test_progress__tokens_unknown__not_claimed() -> None:
    assert "tokens" not in run(io.StringIO(), 20.0, tokens=0.0)[0]


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3661, "1:01:01")])
def test_clock__seconds__as_people_read_them(seconds: float, text: str) -> None:
    assert clock(seconds) == text
