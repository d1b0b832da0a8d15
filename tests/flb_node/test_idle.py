# SPDX-License-Identifier: Apache-2.0
"""The timeout that progress resets."""

import threading

import grpc
import pytest

from flb.errors import AggregatorUnavailable
from flb_node.idle import Progress, moving

pytestmark = pytest.mark.unit


class Call:
    """A call that can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


def test_moving__nothing_moves__the_call_is_cancelled_and_the_reason_named() -> None:
    call = Call()
    with pytest.raises(AggregatorUnavailable, match="stood still for 0.05 s"), moving(call, Progress(), 0.05):
        assert call.cancelled.wait(10)
        raise grpc.FutureCancelledError


def test_moving__progress__resets_the_time() -> None:
    call, progress = Call(), Progress()
    with moving(call, progress, 5.0):
        for _ in range(10):
            progress.moved()
        assert not call.cancelled.is_set()
    assert call.cancelled.is_set(), "what is left of the call ends with the block"


def test_moving__ended__leaves_no_thread() -> None:
    with moving(Call(), Progress(), 60.0):
        assert any(thread.name == "idle" for thread in threading.enumerate())
    assert not any(thread.name == "idle" for thread in threading.enumerate())
