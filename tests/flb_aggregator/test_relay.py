# SPDX-License-Identifier: Apache-2.0
"""The relay between check and chain: batches, order, what is refused, outages, and asking again."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from flb.errors import BadMessage, Busy, ChainUnavailable, ContractRefused, Unavailable
from flb.identity import address_of
from flb.membership import Kind, Status, sign_invite
from flb.types import Digest, Domain, Seconds
from flb_aggregator import relay as relays
from flb_aggregator.relay import MOST_MESSAGES, Outcome, Relay
from flb_aggregator.relay_budget import GAS, Budget
from tests.relaying import END, MemorySlots, message
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_of

pytestmark = pytest.mark.unit

PEER = "ipv4:10.0.0.1:1"
ROOT = Digest(b"\x0d" * 32)


def relay(folder: Path, chain: MemorySlots, joins: int = 100) -> Relay:
    budget = Budget(folder / "relay.json", "0xrun", joins * GAS[Kind.JOIN], 8, lambda: 1_000_000.0)
    return Relay(DOMAIN, chain, budget, lambda text: None, batch_seconds=0.0)


def running(made: Relay, ask: Callable[[], Awaitable[None]]) -> None:
    """Run a test's questions beside the sending loop."""

    async def both() -> None:
        task = asyncio.ensure_future(made.run())
        try:
            await asyncio.wait_for(ask(), 20)
        finally:
            task.cancel()

    asyncio.run(both())


async def settled(made: Relay, *messages: relays.SignedMessage) -> list[Outcome]:
    """Ask until nothing waits."""
    while True:
        outcomes = await made.submit(messages, PEER)
        if all(outcome.state != "accepted" for outcome in outcomes):
            return outcomes
        await asyncio.sleep(0.005)


def test_submit__messages_of_several_nodes__go_in_one_transaction_in_order(tmp_path: Path) -> None:
    chain = MemorySlots()
    made = relay(tmp_path, chain)
    batch = [message(0), message(0, Kind.REGISTER_DATASET, 2, ROOT, 7), message(1)]

    async def ask() -> None:
        assert [outcome.state for outcome in await made.submit(batch, PEER)] == ["accepted"] * 3
        assert await settled(made, *batch) == [Outcome("mined", b"\x01" * 32)] * 3

    running(made, ask)
    assert chain.batches == [batch]
    assert chain.slot(batch[0].message.node).datasets == 1


def test_submit__bad_messages__are_refused_by_name_and_cost_nothing(tmp_path: Path) -> None:
    chain = MemorySlots(admitter=address_of(AGGREGATOR_KEY))
    chain.enroll(1)
    made = relay(tmp_path, chain)
    node = message(1).message.node
    late = sign_invite(AGGREGATOR_KEY, DOMAIN, node, 0, Seconds(chain.now - 1))
    bad = {
        "FLBNotInvited": message(1),
        "FLBBadSignature": message(0, Kind.LEAVE, domain=Domain(1, DOMAIN.run)),
        "FLBReplayed": message(0, Kind.LEAVE, seq=0),
        "FLBNotMember": message(1, Kind.LEAVE),
        "FLBZero": message(0, Kind.REGISTER_DATASET, 1, ROOT, 0),
    }

    async def ask() -> None:
        outcomes = await made.submit(list(bad.values()), PEER)
        assert [(outcome.state, outcome.error) for outcome in outcomes] == [("refused", name) for name in bad]
        expired = [message(0, Kind.LEAVE, deadline=Seconds(chain.now - 1)), message(1, invite=late)]
        assert [outcome.error for outcome in await made.submit(expired, PEER)] == ["FLBExpired"] * 2

    running(made, ask)
    assert chain.batches == [] and made.budget.spent == {}


def test_submit__invited__is_relayed_from_any_network_as_often_as_there_are_invites(tmp_path: Path) -> None:
    chain = MemorySlots(admitter=address_of(AGGREGATOR_KEY))
    made = relay(tmp_path, chain)
    joins = [
        message(index, invite=sign_invite(AGGREGATOR_KEY, DOMAIN, address_of(key_of(index)), 0, END))
        for index in range(12)
    ]

    async def ask() -> None:
        assert {outcome.state for outcome in await settled(made, *joins)} == {"mined"}

    running(made, ask)


def test_submit__beyond_a_limit__takes_none_of_the_call(tmp_path: Path) -> None:
    chain = MemorySlots()
    made = relay(tmp_path, chain)

    async def ask() -> None:
        with pytest.raises(Busy, match="flb chain join 0xrun"):
            await made.submit([message(index) for index in range(9)], PEER)
        assert await settled(made, *(message(index) for index in range(8)))

    running(made, ask)
    assert [len(batch) for batch in chain.batches] == [8]


def test_submit__none_or_too_many__is_refused(tmp_path: Path) -> None:
    made = relay(tmp_path, MemorySlots())
    for count in (0, MOST_MESSAGES + 1):
        with pytest.raises(BadMessage, match="send 1 to 16"):
            asyncio.run(made.submit([message(0)] * count, PEER))


def test_submit__more_than_may_wait__takes_none_and_charges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "MOST_WAITING", 3)
    made = relay(tmp_path, MemorySlots())
    asyncio.run(made.submit([message(0), message(1)], PEER))
    charged = dict(made.budget.spent)
    with pytest.raises(Unavailable, match="too many messages wait for the chain"):
        asyncio.run(made.submit([message(2), message(3)], PEER))
    assert made.waiting == [message(0), message(1)] and made.budget.spent == charged
    assert asyncio.run(made.submit([message(2)], PEER)) == [Outcome("accepted")]


def test_submit__spending_cannot_be_written_down__takes_none(tmp_path: Path) -> None:
    made = relay(tmp_path / "gone", MemorySlots())
    with pytest.raises(Unavailable, match="cannot write down what it spends"):
        asyncio.run(made.submit([message(0)], PEER))
    assert made.waiting == []
    (tmp_path / "gone").mkdir()
    assert asyncio.run(made.submit([message(0)], PEER)) == [Outcome("accepted")]


def test_submit__the_same_again__is_charged_once(tmp_path: Path) -> None:
    chain = MemorySlots()
    made = relay(tmp_path, chain)

    async def ask() -> None:
        for _ in range(5):
            await made.submit([message(0)], PEER)
        await settled(made, message(0))

    running(made, ask)
    assert [len(batch) for batch in chain.batches] == [1] and made.budget.nodes == {message(0).message.node.hex(): 1}


def test_send__chain_away__waits_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relays, "RETRY_SECONDS", 0.01)
    chain = MemorySlots(faults=[ChainUnavailable("away"), ChainUnavailable("away")])
    made = relay(tmp_path, chain)

    async def ask() -> None:
        assert (await settled(made, message(0)))[0].state == "mined"

    running(made, ask)
    assert chain.slot(message(0).message.node).status is Status.ACTIVE


def test_send__refused_as_a_whole__says_so_and_goes_on(tmp_path: Path) -> None:
    chain = MemorySlots(faults=[ContractRefused("revert")])
    made = relay(tmp_path, chain)

    async def ask() -> None:
        first = (await settled(made, message(0)))[0]
        assert (first.state, first.error) == ("refused", "revert")
        assert (await settled(made, message(1)))[0].state == "mined"

    running(made, ask)


def test_send__aggregator_without_coins__the_messages_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's empty purse is no fault of a node, which would stop at a refusal."""
    monkeypatch.setattr(relays, "RETRY_SECONDS", 0.01)
    chain = MemorySlots(faults=[ContractRefused("InsufficientFunds", (), "fund the account")])
    made = relay(tmp_path, chain)

    async def ask() -> None:
        assert (await settled(made, message(0)))[0].state == "mined"

    running(made, ask)


def test_send__messages_that_come_while_the_chain_is_away__go_in_the_next_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first transaction may be under way: sent again with more in it, it would be another, and be paid twice."""
    monkeypatch.setattr(relays, "RETRY_SECONDS", 0.01)
    made = relay(tmp_path, MemorySlots())
    tried: list[list[relays.SignedMessage]] = []

    class Away(MemorySlots):
        def relay(self, messages):  # type: ignore[no-untyped-def]
            tried.append(list(messages))
            return super().relay(messages)

    made.chain = chain = Away(faults=[ChainUnavailable("away")] * 20)

    async def ask() -> None:
        await made.submit([message(0)], PEER)
        while not tried:
            await asyncio.sleep(0.001)
        await settled(made, message(0), message(1))

    running(made, ask)
    assert chain.batches == [[message(0)], [message(1)]]
    assert tried[:21] == [[message(0)]] * 21


def test_submit__mined_and_taken_back_by_a_reorg__is_sent_again(tmp_path: Path) -> None:
    chain = MemorySlots()
    made = relay(tmp_path, chain)

    async def ask() -> None:
        assert (await settled(made, message(0), message(1)))[0].state == "mined"
        del chain.slots[message(0).message.node]
        assert [outcome.state for outcome in await settled(made, message(0), message(1))] == ["mined", "mined"]

    running(made, ask)
    assert chain.batches == [[message(0), message(1)], [message(0)]]
    assert chain.slot(message(0).message.node).status is Status.ACTIVE


def test_check__many_wait__asks_the_chain_for_the_nodes_of_the_call_alone(tmp_path: Path) -> None:
    class Counting(MemorySlots):
        asked = 0

        def slot(self, node):  # type: ignore[no-untyped-def]
            self.asked += 1
            return super().slot(node)

    chain = Counting()
    made = relay(tmp_path, chain)
    made.waiting = [message(index) for index in range(1, 40)] + [message(0)]
    outcomes, _ = made.check([message(0, Kind.LEAVE, 2), message(0, Kind.LEAVE, 1)])
    assert [refused and refused.error for refused in outcomes] == [None, "FLBReplayed"]
    assert chain.asked < 10


def test_send__state_that_changed_in_between__is_told_with_its_reason(tmp_path: Path) -> None:
    chain = MemorySlots()
    made = relay(tmp_path, chain)

    async def ask() -> None:
        await made.submit([message(0), message(1)], PEER)
        chain.apply([message(0, seq=5)])
        states = await settled(made, message(0), message(1))
        assert [(outcome.state, outcome.error) for outcome in states] == [("skipped", "FLBReplayed"), ("mined", "")]

    running(made, ask)


def test_submit__what_the_rules_allow_and_the_chain_does_not__is_refused(tmp_path: Path) -> None:
    class Stricter(MemorySlots):
        def simulate(self, messages):  # type: ignore[no-untyped-def]
            return tuple(False for _ in messages)

    chain = Stricter()
    made = relay(tmp_path, chain)
    outcome = asyncio.run(made.submit([message(0)], PEER))[0]
    assert outcome.state == "refused" and "would skip" in outcome.reason and made.budget.spent == {}
