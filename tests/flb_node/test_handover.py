# SPDX-License-Identifier: Apache-2.0
"""Two threads, one round after another, and what each hears when the other ends."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flb.errors import LostChain
from flb.types import Step
from flb_node.handover import Ended, Handover
from flb_node.pipeline import Tensors

pytestmark = pytest.mark.unit

ALL = frozenset({"a"})


def adapter(value: float) -> Tensors:
    return {"a": np.full(2, value, np.float32)}


def test_rounds__two_threads__each_result_answers_its_work() -> None:
    handover = Handover()

    def daemon() -> list[float]:
        made = [float(handover.train(adapter(value), ALL, 0, Step(1))["a"][0]) for value in range(20)]
        handover.finish()
        return made

    with ThreadPoolExecutor() as pool:
        results = pool.submit(daemon)
        while (work := handover.take()) is not None:
            handover.give({"a": work.adapter["a"] + np.float32(0.5)})
        assert results.result() == [value + 0.5 for value in range(20)]


def test_take__again_before_the_result__the_same_work() -> None:
    handover = Handover()
    with ThreadPoolExecutor() as pool:
        result = pool.submit(handover.train, adapter(1), ALL, 0, Step(1))
        first, second = handover.take(), handover.take()
        assert first is second and first is not None
        handover.give(first.adapter)
        assert result.result()["a"][0] == 1


def test_train__trainer_gone__ended() -> None:
    handover = Handover()
    with ThreadPoolExecutor() as pool:
        result = pool.submit(handover.train, adapter(1), ALL, 0, Step(1))
        handover.take()
        handover.abandon()
        with pytest.raises(Ended):
            result.result()


def test_take__daemon_ended_by_an_error__raises_it() -> None:
    handover = Handover()
    handover.finish(LostChain("the run is not on this chain"))
    with pytest.raises(LostChain):
        handover.take()
    with pytest.raises(LostChain):
        handover.until(lambda: None)


def test_until__announced__the_value() -> None:
    handover, told = Handover(), list[int]()
    with ThreadPoolExecutor() as pool:
        waiting = threading.Event()

        def look() -> int | None:
            waiting.set()
            return told[0] if told else None

        value = pool.submit(handover.until, look)
        waiting.wait()
        told.append(7)
        handover.announce()
        assert value.result() == 7
    handover.finish()
    assert handover.until(lambda: None) is None
