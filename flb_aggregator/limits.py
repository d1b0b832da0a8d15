# SPDX-License-Identifier: Apache-2.0
"""What one aggregator gives to all of its callers: calls by caller and by address, and turns at its memory.

A transfer moves bytes only in its turn. A turn is held while bytes flow and lent to the next one while its peer is
slow, so slow peers cost a chunk each and hold nobody up, and memory does not grow with the cohort. Who finds the queue
full is told when to come back.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from flb.errors import Busy

ACTIVE = 2
"""Transfers of one direction that move bytes at once: they fill two cores, and while the next two move, what the first
two sent is checked."""
WAITING = 4
"""Transfers that wait for their turn; each holds a window of gRPC's memory."""
OPEN = 12
"""Transfers at all, the slow ones included; each may hold a chunk."""
LEND_SECONDS = 0.1
"""A peer that lets its turn wait for so long lends it."""
QUEUE_SECONDS = 20.0
"""Nobody waits longer for a turn: the other side's idle timeout must not end what only waits."""
RETRY_SECONDS = 0.25
"""How long a transfer is thought to take before one was seen; and the least time to come back after."""
KEYS = 10_000
"""Callers that are remembered; the one that has been quiet for longest is forgotten."""


class Turns:
    """Turns of one direction of transfer."""

    def __init__(self, active: int = ACTIVE, waiting: int = WAITING, most: int = OPEN) -> None:
        self.active, self.waiting, self.most = active, waiting, most
        self.slots = asyncio.Semaphore(active)
        self.queued = 0
        self.open = 0
        self.seconds = RETRY_SECONDS
        """How long a transfer takes, as a moving average."""

    def retry_seconds(self) -> float:
        """When those that wait now will have had their turn."""
        return max(RETRY_SECONDS, self.seconds * (1 + self.queued) / self.active)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator["Turn"]:
        """Wait for a turn and hold it for a block. Raises Busy where too many wait already."""
        if self.queued >= self.waiting or self.open >= self.most:
            raise Busy(
                f"{self.open} transfers are open and {self.queued} of them wait",
                "come back later",
                self.retry_seconds(),
            )
        self.open += 1
        turn = Turn(self)
        clock = asyncio.get_running_loop().time
        try:
            await turn.take()
            begun = clock()
            yield turn
            self.seconds += (clock() - begun - self.seconds) / 8
        finally:
            turn.lend()
            self.open -= 1


class Turn:
    """One transfer's turn: call `watch` before waiting for the peer, `resume` after."""

    __slots__ = ("_held", "_timer", "_turns")

    def __init__(self, turns: Turns) -> None:
        self._turns, self._held = turns, False
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Wait until the turn comes. Raises Busy if that takes too long."""
        self._turns.queued += 1
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._turns.slots.acquire()
        except TimeoutError as error:
            raise Busy("no turn came for this transfer", "come back later", self._turns.retry_seconds()) from error
        finally:
            self._turns.queued -= 1
        self._held = True

    def watch(self) -> None:
        """From now on the peer has to move; lends the turn if it does not."""
        self._timer = asyncio.get_running_loop().call_later(LEND_SECONDS, self.lend)

    async def resume(self) -> None:
        """The peer moved: go on, in a new turn if the old one was lent."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._held:
            await self.take()

    def lend(self) -> None:
        """Let another one move."""
        if self._timer is not None:
            self._timer.cancel()
        if self._held:
            self._held = False
            self._turns.slots.release()


@dataclass(slots=True)
class Rate:
    """A token bucket for each key: `burst` calls at once, `per_second` in the long run. `now` in seconds."""

    per_second: float
    burst: float
    now: Callable[[], float]
    buckets: OrderedDict[Hashable, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, key: Hashable, what: str) -> None:
        """Count one call. Raises Busy where the bucket is empty."""
        now = self.now()
        level, since = self.buckets.pop(key, (self.burst, now))
        level = min(self.burst, level + (now - since) * self.per_second)
        allowed = level >= 1.0
        self.buckets[key] = (level - 1.0 if allowed else level, now)
        if len(self.buckets) > KEYS:
            self.buckets.popitem(last=False)
        if not allowed:
            raise Busy(f"{what} calls too often", "call less often", (1.0 - level) / self.per_second)


@dataclass(slots=True)
class Held:
    """How many streams each key holds open."""

    most: int
    counts: dict[Hashable, int] = field(default_factory=dict)

    @contextmanager
    def stream(self, key: Hashable, what: str) -> Iterator[None]:
        """One more for the length of a block. Raises Busy beyond `most`; then nothing is counted."""
        if self.counts.get(key, 0) >= self.most:
            raise Busy(f"{what} holds {self.most} streams open", "close one first", RETRY_SECONDS)
        self.counts[key] = self.counts.get(key, 0) + 1
        try:
            yield
        finally:
            left = self.counts.pop(key) - 1
            if left > 0:
                self.counts[key] = left


def host_of(peer: str) -> str:
    """The network address of a gRPC peer name such as ipv4:10.0.0.1:4242 or ipv6:%5B::1%5D:4242, without its port."""
    return peer.rpartition(":")[0]
