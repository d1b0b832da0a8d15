# SPDX-License-Identifier: Apache-2.0
"""Rounds are timed by the server's own log."""

import json

import pytest

from bench.peers.nvflare import round_seconds

pytestmark = pytest.mark.unit


def line(clock: str, message: str) -> str:
    return json.dumps({"asctime": f"2026-01-01 {clock}", "levelname": "INFO", "message": message})


def test_round_seconds__two_rounds__end_before_the_model_is_written() -> None:
    log = "\n".join([
        line("10:00:00,000", "Sampled clients: ['site-1']"), line("10:00:02,500", "Aggregated 1/1 results"),
        line("10:00:03,250", "Start persist model on server."), line("10:00:04,000", "End persist model on server."),
        line("10:00:04,000", "Sampled clients: ['site-1']"), line("10:00:05,125", "Start persist model on server."),
    ])  # fmt: skip
    assert round_seconds(log) == [3.25, 1.125]


def test_round_seconds__last_round_cut_off__does_not_count() -> None:
    assert round_seconds(line("10:00:00,000", "Sampled clients: ['site-1']")) == []
