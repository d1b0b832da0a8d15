# SPDX-License-Identifier: Apache-2.0
"""The way of chunks from the loop to threads: order, bound, and failure that reaches the stream."""

import asyncio
import threading

import pytest

from flb_aggregator.feed import Feed

pytestmark = pytest.mark.unit


def test_feed__many_chunks__are_taken_in_order() -> None:
    taken: list[bytes] = []

    async def main() -> None:
        feed = Feed(lambda chunk: taken.append(bytes(chunk)))
        for number in range(500):
            await feed.put(number.to_bytes(2, "big"))
        await feed.end()

    asyncio.run(main())
    assert taken == [number.to_bytes(2, "big") for number in range(500)]


def test_feed__slow_disk__lets_only_depth_chunks_wait() -> None:
    gate, put = threading.Event(), []

    async def main() -> None:
        feed = Feed(lambda chunk: (gate.wait(10), None)[1], depth=3)

        async def send() -> None:
            for number in range(10):
                await feed.put(b"x")
                put.append(number)

        sender = asyncio.create_task(send())
        for _ in range(200):
            await asyncio.sleep(0)
        assert put == [0, 1, 2], "the stream waits, so the peer does"
        gate.set()
        await sender
        await feed.end()

    asyncio.run(main())
    assert len(put) == 10


def test_feed__taking_fails__the_stream_hears_it_and_nothing_more_is_taken() -> None:
    taken: list[bytes] = []

    def take(chunk: bytes | memoryview) -> None:
        if chunk == b"bad":
            raise ValueError("no")
        taken.append(bytes(chunk))

    async def main() -> None:
        feed = Feed(take)
        with pytest.raises(ValueError, match="no"):
            for chunk in (b"a", b"bad", *[b"b"] * 20):
                await feed.put(chunk)
            await feed.end()
        await feed.stop()

    asyncio.run(main())
    assert taken == [b"a"]


def test_feed__stopped__returns_when_no_thread_works_for_it() -> None:
    running = threading.Event()
    state: list[str] = []

    def take(chunk: bytes | memoryview) -> None:
        running.set()
        state.append("begun")
        state.append("ended")

    async def main() -> None:
        feed = Feed(take)
        await feed.put(b"x")
        await feed.stop()
        assert state in ([], ["begun", "ended"]), "never half way"

    asyncio.run(main())
