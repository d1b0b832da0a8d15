# SPDX-License-Identifier: Apache-2.0
"""Threads whose results leave in order, and whose first error ends them all."""

import threading
from collections.abc import Callable

import pytest

from flb_aggregator.in_order import in_order

pytestmark = pytest.mark.unit


def echo() -> Callable[[int], memoryview]:
    """A worker whose result is the piece's number."""
    return lambda piece: memoryview(bytes([piece]))


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_in_order__any_number_of_threads__writes_in_order(threads: int, count: int) -> None:
    out = bytearray()
    in_order(range(count), echo, out.extend, threads)
    assert out == bytes(range(count))


def test_in_order__the_first_piece_takes_longest__the_others_wait() -> None:
    second = threading.Event()
    out = bytearray()

    def worker() -> Callable[[int], memoryview]:
        def work(piece: int) -> memoryview:
            if piece == 0:
                assert second.wait(10), "the other thread works meanwhile"
            else:
                second.set()
            return memoryview(bytes([piece]))

        return work

    in_order(range(4), worker, out.extend, 2)
    assert out == bytes(range(4))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("where", ["start", "work", "write"])
def test_in_order__an_error_anywhere__ends_all_and_is_raised(threads: int, where: str) -> None:
    out = bytearray()

    def fail(at: str) -> None:
        if at == where:
            raise OSError(f"no {at}")

    def worker() -> Callable[[int], memoryview]:
        fail("start")

        def work(piece: int) -> memoryview:
            if piece == 5:
                fail("work")
            return memoryview(bytes([piece]))

        return work

    def write(data: memoryview) -> None:
        if data[0] == 5:
            fail("write")
        out.extend(data)

    before = set(threading.enumerate())
    with pytest.raises(OSError, match=f"no {where}"):
        in_order(range(100), worker, write, threads)
    assert out == bytes(range(0 if where == "start" else 5))
    assert set(threading.enumerate()) <= before, "threads of other tests may end meanwhile; none of ours is left"
