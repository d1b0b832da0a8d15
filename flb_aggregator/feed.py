# SPDX-License-Identifier: Apache-2.0
"""From the event loop to threads: chunks of one stream are taken in order, at most `DEPTH` of them in flight.

The loop receives the next chunks while a thread hashes and writes the one before. No thread waits for a peer: one is
used only while there is something to take.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeAlias

Chunk: TypeAlias = bytes | memoryview

DEPTH = 2
"""Chunks of a stream that may wait; with 1 MiB each this is most of what a stream costs."""


class Feed:
    """Hands chunks to `take`, which may raise: then `put` or `end` raises that, and nothing more is taken."""

    def __init__(self, take: Callable[[Chunk], None], executor: Executor | None = None, depth: int = DEPTH) -> None:
        self._take, self._executor = take, executor
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(depth)
        self._chunks: deque[Chunk] = deque()
        self._work: asyncio.Future[None] | None = None
        self._failed: BaseException | None = None

    async def put(self, chunk: Chunk) -> None:
        """Queue one chunk; waits while the queue is full."""
        await self._room.acquire()
        if self._failed is not None:
            raise self._failed
        self._chunks.append(chunk)
        if self._work is None:
            self._start()

    async def end(self) -> None:
        """Wait until every chunk is taken."""
        await self._idle()
        if self._failed is not None:
            raise self._failed

    async def stop(self) -> None:
        """Drop what waits, and return once no thread works for this feed."""
        self._chunks.clear()
        await self._idle()

    async def _idle(self) -> None:
        while self._work is not None:
            await asyncio.shield(self._work)
            await asyncio.sleep(0)  # a future that is done does not yield, and its callback needs the loop

    def _start(self) -> None:
        self._work = asyncio.ensure_future(self._loop.run_in_executor(self._executor, self._drain))
        self._work.add_done_callback(self._drained)

    def _drain(self) -> None:
        """In a thread: take what is there. The deque's ends are safe to use from both sides."""
        while self._failed is None:
            try:
                chunk = self._chunks.popleft()
            except IndexError:
                return
            try:
                self._take(chunk)
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to the stream, which raises it
                self._failed = error
            self._loop.call_soon_threadsafe(self._room.release)

    def _drained(self, _: "asyncio.Future[None]") -> None:
        self._work = None
        if self._failed is not None:
            self._chunks.clear()
            self._room.release()  # a `put` that waits must see the failure
        elif self._chunks:
            self._start()
