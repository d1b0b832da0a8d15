# SPDX-License-Identifier: Apache-2.0
"""Transactions: what the contract refuses, nonces under threads and cuts, and every verb once."""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import requests

from flb import events as chain_events
from flb.chain import membership_calls
from flb.chain import sender as sender_module
from flb.chain.fees import MOST_TIP, TIP
from flb.chain.local import LocalChain
from flb.chain.rpc import Rpc
from flb.chain.sender import Mined, Sender
from flb.errors import ChainUnavailable, ContractRefused
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Round
from tests.chains import GRACE_SECONDS, Deployed, a_roll, account, later, serving

pytestmark = pytest.mark.chain

ROOT = Digest(b"\x0d" * 32)
PROMPT_SECONDS = 10


@pytest.fixture
def by_hand(rpc: Rpc) -> Iterator[Rpc]:
    """A chain that mines only when it is told to."""
    rpc.call("evm_setAutomine", False)
    yield rpc
    rpc.call("evm_setAutomine", True)
    rpc.call("evm_mine")


def count(rpc: Rpc, address: Address, tag: str) -> int:
    """The account's transactions: `latest` for mined ones, `pending` with those that wait."""
    return int(rpc.call("eth_getTransactionCount", "0x" + address.hex(), tag), 16)


def await_pending(sender: Sender, number: int, *sending: "Future[Mined]") -> None:
    """Wait until so many transactions of the account are mined or wait."""
    waited = threading.Event()
    for _ in range(PROMPT_SECONDS * 100):
        if count(sender.rpc, sender.address, "pending") == number:
            return
        for future in sending:
            if future.done():
                future.result()
        waited.wait(0.01)
    raise AssertionError("the transactions did not arrive")


def refused(call: Callable[[], object]) -> tuple[str, tuple[object, ...]]:
    """Name and values of the custom error."""
    with pytest.raises(ContractRefused) as caught:
        call()
    assert caught.value.name in str(caught.value)
    return caught.value.name, caught.value.values


def shown(sender: Sender) -> str:
    return "0x" + sender.address.hex()


def test_invoke__each_refusal__has_the_name_and_values_of_the_custom_error(deployed: Deployed) -> None:
    owner, aggregator, (node, other) = deployed.owner, deployed.aggregator, deployed.nodes
    assert refused(node.start) == ("FLBUnauthorized", (shown(node),))
    assert refused(lambda: aggregator.roll(a_roll(1))) == ("FLBWrongRound", (1, 0))
    assert refused(lambda: membership_calls.leave(node, node.address)) == ("FLBNotMember", (shown(node),))
    membership_calls.join(node, ZERO_ADDRESS)
    assert refused(lambda: membership_calls.join(node, ZERO_ADDRESS)) == ("FLBAlreadyMember", (shown(node),))
    assert refused(lambda: owner.remove(other.address)) == ("FLBNotMember", (shown(other),))
    assert refused(lambda: membership_calls.register_dataset(node, node.address, ZERO_DIGEST, 5)) == (
        "FLBZero",
        ("root",),
    )
    assert refused(lambda: membership_calls.register_dataset(node, node.address, ROOT, 0)) == ("FLBZero", ("records",))
    owner.start()
    assert refused(owner.start) == ("FLBAlreadyStarted", ())
    assert refused(lambda: node.roll(a_roll(1))) == ("FLBUnauthorized", (shown(node),))
    assert refused(lambda: aggregator.roll(a_roll(2))) == ("FLBWrongRound", (2, 1))
    opening = deployed.registry().poll().opening
    assert opening is not None
    assert refused(lambda: node.expire(Round(1))) == ("FLBTooEarly", (opening.deadline + GRACE_SECONDS,))
    owner.finish()
    aggregator.roll(a_roll(1))
    assert refused(lambda: membership_calls.join(other, ZERO_ADDRESS)) == ("FLBFinished", ())


def test_invoke__every_verb__does_what_its_event_says(deployed: Deployed) -> None:
    owner, aggregator, (node, other) = deployed.owner, deployed.aggregator, deployed.nodes
    payee = Address(b"\x0e" * 20)
    sent = [
        membership_calls.join(node, payee),
        membership_calls.join(other, ZERO_ADDRESS),
        membership_calls.register_dataset(other, other.address, ROOT, 12),
        owner.start(),
        aggregator.roll(a_roll(1)),
        aggregator.set_endpoint("flb.example:7400", ROOT, ROOT),
        membership_calls.leave(node, node.address),
        owner.remove(other.address),
        owner.invoke("setAggregator", node.address),
    ]
    later(deployed.rpc, 151)
    sent += [other.expire(Round(2)), owner.finish(), node.roll(a_roll(3))]
    reader = deployed.registry()
    view = reader.poll()
    assert view.finished
    assert view.uri == "flb.example:7400"
    assert view.members == {}
    assert view.last == 3
    by_transaction: dict[Digest, list[Any]] = {}
    for event in reader.events:
        by_transaction.setdefault(event.place.tx, []).append(event)
    assert list(by_transaction) == [deployed.created.tx, *(mined.tx for mined in sent)]
    assert [by_transaction[mined.tx][0].place.block for mined in sent] == [mined.block for mined in sent]
    assert [type(by_transaction[mined.tx][0]) for mined in sent] == [
        chain_events.ChainNodeJoined,
        chain_events.ChainNodeJoined,
        chain_events.ChainDatasetRegistered,
        chain_events.ChainRunStarted,
        chain_events.ChainRoundRolled,
        chain_events.ChainEndpointSet,
        chain_events.ChainNodeLeft,
        chain_events.ChainNodeRemoved,
        chain_events.ChainAggregatorSet,
        chain_events.ChainRoundVoided,
        chain_events.ChainRunFinishing,
        chain_events.ChainRoundRolled,
    ]
    joined = by_transaction[sent[0].tx][0]
    assert (joined.node, joined.payee, joined.relayed) == (node.address, payee, False)
    assert isinstance(by_transaction[sent[-1].tx][1], chain_events.ChainRunFinished)


def test_send__two_threads__leave_no_nonce_gap(deployed: Deployed) -> None:
    node = deployed.nodes[0]
    membership_calls.join(node, ZERO_ADDRESS)
    before = count(deployed.rpc, node.address, "latest")
    with ThreadPoolExecutor(2) as pool:
        mined = list(
            pool.map(
                lambda index: membership_calls.register_dataset(node, node.address, Digest(bytes([index + 1]) * 32), 1),
                range(12),
            )
        )
    assert len({one.tx for one in mined}) == 12
    assert count(deployed.rpc, node.address, "latest") == before + 12
    reader = deployed.registry()
    reader.poll()
    registered = [event.version for event in reader.events if isinstance(event, chain_events.ChainDatasetRegistered)]
    assert registered == list(range(1, 13))


def test_send__two_threads_before_a_block__both_get_into_it(deployed: Deployed, by_hand: Rpc) -> None:
    aggregator = deployed.aggregator
    start = count(by_hand, aggregator.address, "pending")
    with ThreadPoolExecutor(2) as pool:
        sending = [pool.submit(aggregator.set_endpoint, f"host:{port}", ROOT, ROOT) for port in (1, 2)]
        await_pending(aggregator, start + 2, *sending)
        by_hand.call("evm_mine")
        first, second = (future.result(PROMPT_SECONDS) for future in sending)
    assert first.block == second.block
    assert first.tx != second.tx


def test_send__transaction_that_fails_when_it_is_mined__is_refused(
    deployed: Deployed, by_hand: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both removals pass their simulation; the block takes one of them."""
    owner, node = deployed.owner, deployed.nodes[0]
    starts = [count(by_hand, sender.address, "pending") for sender in (owner, node)]
    with ThreadPoolExecutor(2) as pool:
        joining = pool.submit(membership_calls.join, node, ZERO_ADDRESS)
        await_pending(node, starts[1] + 1, joining)
        by_hand.call("evm_mine")
        joining.result(PROMPT_SECONDS)
        both, push = threading.Barrier(2, timeout=PROMPT_SECONDS), Sender.push

        def together(sender: Sender, raw: bytes) -> None:
            both.wait()  # else the second would be simulated on top of the first
            push(sender, raw)

        monkeypatch.setattr(Sender, "push", together)
        sending = [pool.submit(owner.remove, node.address), pool.submit(membership_calls.leave, node, node.address)]
        await_pending(owner, starts[0] + 1, sending[0])
        await_pending(node, starts[1] + 2, sending[1])
        by_hand.call("evm_mine")
        results = [future.exception(PROMPT_SECONDS) for future in sending]
    failed = [error for error in results if error is not None]
    assert len(failed) == 1
    assert isinstance(failed[0], ContractRefused)
    assert (failed[0].name, failed[0].values) == ("FLBNotMember", (shown(node),))
    assert "was mined, but the state had changed" in str(failed[0])


def test_send__dropped_transaction__leaves_no_gap_for_the_next(
    deployed: Deployed, by_hand: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "RECEIPT_SECONDS", 0.2)
    node = deployed.nodes[0]
    with pytest.raises(ChainUnavailable, match="is not mined"):
        membership_calls.join(node, ZERO_ADDRESS)
    waiting = by_hand.call("eth_getBlockByNumber", "pending", False)["transactions"]
    assert len(waiting) == 1
    assert by_hand.call("hardhat_dropTransaction", waiting[0])
    by_hand.call("evm_setAutomine", True)
    assert membership_calls.join(node, ZERO_ADDRESS).gas_used > 0


@pytest.mark.parametrize("mined_at_once", [True, False], ids=["mined", "waiting"])
def test_send__answer_lost_after_the_chain_took_it__is_sent_once(
    deployed: Deployed, chain: LocalChain, monkeypatch: pytest.MonkeyPatch, mined_at_once: bool
) -> None:
    cuts: list[str] = []

    def forward(request: Any) -> bytes | None:
        answer = requests.post(chain.url, json=request, timeout=10).content
        if request["method"] == "eth_sendRawTransaction" and not cuts:
            cuts.append(request["params"][0])
            return None
        if request["method"] == "eth_sendRawTransaction":
            assert "error" in json.loads(answer), "the second time the chain knows it"
            deployed.rpc.call("evm_setAutomine", True)
            deployed.rpc.call("evm_mine")
        return answer

    if not mined_at_once:
        deployed.rpc.call("evm_setAutomine", False)
    before = count(deployed.rpc, deployed.nodes[0].address, "latest")
    with serving(forward) as url:
        node = Sender(Rpc(url), deployed.nodes[0].key, deployed.run)
        membership_calls.join(node, ZERO_ADDRESS)
    assert len(cuts) == 1
    assert count(deployed.rpc, node.address, "latest") == before + 1


def test_send__account_without_coins__says_how_to_fund_it(rpc: Rpc, deployed: Deployed) -> None:
    poor = Sender(rpc, secrets.token_bytes(32), deployed.run)
    with pytest.raises(ContractRefused, match="InsufficientFunds.*flb account fund"):
        membership_calls.join(poor, ZERO_ADDRESS)
    rich = account(rpc)
    rich.run = deployed.run
    assert membership_calls.join(rich, ZERO_ADDRESS).gas_used < 60_000


@pytest.mark.parametrize(
    ("suggested", "tip"), [(hex(10**6), 10**6), (hex(10**12), MOST_TIP), (None, TIP)], ids=["less", "too much", "none"]
)
def test_send__tip__is_what_the_chain_suggests_within_bounds(
    deployed: Deployed, chain: LocalChain, suggested: str | None, tip: int
) -> None:
    """One gwei is a hundred times the price of some chains, and less than others take."""

    def forward(request: Any) -> bytes:
        if request["method"] != "eth_maxPriorityFeePerGas":
            return requests.post(chain.url, json=request, timeout=10).content
        missing = {"error": {"code": -32601, "message": "the method does not exist"}}
        return json.dumps({"id": 1, **({"result": suggested} if suggested else missing)}).encode()

    with serving(forward) as url:
        mined = membership_calls.join(Sender(Rpc(url), deployed.nodes[0].key, deployed.run), ZERO_ADDRESS)
    sent = deployed.rpc.call("eth_getTransactionByHash", "0x" + mined.tx.hex())
    assert int(sent["maxPriorityFeePerGas"], 16) == tip


def test_send__refused_transaction__costs_no_nonce(deployed: Deployed) -> None:
    node = deployed.nodes[0]
    before = count(deployed.rpc, node.address, "latest")
    refused(lambda: membership_calls.leave(node, node.address))
    membership_calls.join(node, ZERO_ADDRESS)
    assert count(deployed.rpc, node.address, "latest") == before + 1


def test_send__reorg_took_back_earlier_transactions__learns_the_nonce_anew(deployed: Deployed) -> None:
    node = deployed.nodes[0]
    taken = deployed.rpc.call("evm_snapshot")
    membership_calls.join(node, ZERO_ADDRESS)
    assert deployed.rpc.call("evm_revert", taken)
    membership_calls.join(node, ZERO_ADDRESS)
    assert count(deployed.rpc, node.address, "latest") == 1
