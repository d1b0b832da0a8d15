# SPDX-License-Identifier: Apache-2.0
"""What a simulated run shows: a line a round where there is no terminal."""

import io

import pytest
from rich.console import Console

from flb_cli.simulate_view import View

pytestmark = pytest.mark.unit


def test_view__no_terminal__is_a_line_a_round() -> None:
    out = io.StringIO()
    with View(2, 3, Console(file=out)) as view:
        view.say("loading")
        view.turn(1, 2)
        view.sealed({"round": 1, "step": 1, "accepted": 2, "rejected": 1, "eval_loss": 2.5})
        view.sealed({"round": 3, "step": 2, "accepted": 3, "rejected": 0, "eval_loss": None})
    assert out.getvalue() == "round 1: 2 updates, 1 refused, loss 2.5000\nround 3: 3 updates\n"


def test_view__terminal__counts_turns() -> None:
    out = io.StringIO()
    with View(2, 3, Console(file=out, force_terminal=True)) as view:
        view.turn(1, 2)
        assert (view.bar.tasks[0].completed, view.bar.tasks[0].total) == (1, 6)
        view.sealed({"round": 1, "step": 1, "accepted": 3, "rejected": 0, "eval_loss": None})
        assert view.bar.tasks[0].completed == 3
    assert "round 1 of 2, node 2" in out.getvalue()
