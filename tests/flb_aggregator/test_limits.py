# SPDX-License-Identifier: Apache-2.0
"""Turns, call rates and open streams: who waits, who is told to come back, and that nothing leaks."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Busy
from flb_aggregator import limits
from flb_aggregator.limits import Held, Rate, Turns, host_of

pytestmark = pytest.mark.unit


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_turns__more_than_active__wait_in_order() -> None:
    async def main() -> list[str]:
        turns, said = Turns(active=1, waiting=5), list[str]()
        gates = [asyncio.Event() for _ in range(3)]

        async def move(number: int) -> None:
            async with turns.turn():
                said.append(f"begin {number}")
                await gates[number].wait()
                said.append(f"end {number}")

        tasks = [asyncio.create_task(move(number)) for number in range(3)]
        await settle()
        assert said == ["begin 0"] and turns.queued == 2
        for gate in gates:
            gate.set()
        await asyncio.gather(*tasks)
        assert (turns.open, turns.queued) == (0, 0)
        return said

    assert asyncio.run(main()) == ["begin 0", "end 0", "begin 1", "end 1", "begin 2", "end 2"]


def test_turns__queue_full__says_when_to_come_back() -> None:
    async def main() -> None:
        turns = Turns(active=1, waiting=1)
        async with turns.turn():
            second = asyncio.create_task(turns.turn().__aenter__())
            await settle()
            with pytest.raises(Busy) as caught:
                async with turns.turn():
                    pass
            assert caught.value.retry_seconds > 0
            second.cancel()
            await settle()
        assert turns.queued == 0 and turns.slots._value == 1

    asyncio.run(main())


def test_turns__busy__asks_for_as_long_as_the_queue_will_take() -> None:
    async def main() -> None:
        turns = Turns(active=2, waiting=3)
        turns.seconds, turns.queued = 10.0, 3
        with pytest.raises(Busy) as caught:
            async with turns.turn():
                pass
        assert caught.value.retry_seconds == 20.0

    asyncio.run(main())


def test_turns__slow_peer__lends_its_turn_and_waits_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LEND_SECONDS", 0.0)

    async def main() -> None:
        turns = Turns(active=1, waiting=1)
        async with turns.turn() as slow:
            slow.watch()
            await asyncio.sleep(0.01)
            async with turns.turn():  # would wait for ever if the slow one held on
                back = asyncio.create_task(slow.resume())
                await settle()
                assert not back.done(), "the slow one waits for its next turn"
            await back
        assert turns.slots._value == 1 and turns.open == 0

    asyncio.run(main())


def test_turns__peer_that_moves_in_time__keeps_its_turn() -> None:
    async def main() -> None:
        turns = Turns(active=1)
        async with turns.turn() as turn:
            for _ in range(3):
                turn.watch()
                await turn.resume()
            assert turns.slots.locked()

    asyncio.run(main())


def test_turns__no_turn_in_time__is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "QUEUE_SECONDS", 0.01)

    async def main() -> None:
        turns = Turns(active=1)
        async with turns.turn():
            with pytest.raises(Busy, match="no turn"):
                async with turns.turn():
                    pass
        assert (turns.open, turns.queued, turns.slots._value) == (0, 0, 1)

    asyncio.run(main())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2)), max_size=60))
def test_rate__any_calls__never_lets_more_through_than_it_says(calls: list[tuple[str, float]]) -> None:
    clock = [0.0]
    rate = Rate(2.0, 3.0, lambda: clock[0])
    passed: dict[str, int] = {}
    for key, wait in calls:
        clock[0] += wait
        with suppress(Busy):
            rate.take(key, key)
            passed[key] = passed.get(key, 0) + 1
        assert passed.get(key, 0) <= 3 + 2 * clock[0]


def test_rate__refused_caller__may_call_when_it_was_told_to() -> None:
    clock = [0.0]
    rate = Rate(2.0, 1.0, lambda: clock[0])
    rate.take("a", "a")
    with pytest.raises(Busy) as caught:
        rate.take("a", "a")
    rate.take("b", "b")
    clock[0] += caught.value.retry_seconds
    rate.take("a", "a")


def test_rate__very_many_callers__forgets_the_quiet_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEYS", 10)
    rate = Rate(1.0, 1.0, lambda: 0.0)
    for number in range(100):
        rate.take(number, "x")
    assert len(rate.buckets) == 10


def test_held__beyond_the_limit__is_busy_until_one_leaves() -> None:
    held = Held(2)
    with held.stream("a", "a"):
        with held.stream("a", "a"), pytest.raises(Busy, match="holds 2 streams"), held.stream("a", "a"):
            pass
        with held.stream("a", "a"):
            pass
    assert held.counts == {}


@pytest.mark.parametrize(
    ("peer", "host"), [("ipv4:10.0.0.1:4242", "ipv4:10.0.0.1"), ("ipv6:%5B::1%5D:4242", "ipv6:%5B::1%5D")]
)
def test_host_of__peer_name__has_no_port(peer: str, host: str) -> None:
    assert host_of(peer) == host
