# SPDX-License-Identifier: Apache-2.0
"""Transactions that are cut, dropped, stuck or overtaken: each call is done once, and no nonce stays open."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from flb.chain import fees
from flb.chain import sender as sender_module
from flb.chain.fees import Fees
from flb.chain.local import LocalChain
from flb.chain.outbox import Entry, Outbox
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender, calldata
from flb.chain.transaction import sign
from flb.errors import ChainUnavailable, ContractRefused
from flb.events import ChainEndpointSet
from flb.types import Digest
from tests.chain.test_sender import await_pending, count
from tests.chains import Deployed, a_roll, mine, serving

pytestmark = pytest.mark.chain

ROOT = Digest(b"\x0d" * 32)
DEAR, FAIR = 10**11, 10**9
"""Base fees in wei a gas: one that no transaction of these tests offers at first, and one that each bears."""
LOOKS = 400


@pytest.fixture
def by_hand(rpc: Rpc) -> Iterator[Rpc]:
    """A chain that mines only when it is told to."""
    rpc.call("evm_setAutomine", False)
    yield rpc
    rpc.call("evm_setIntervalMining", 0)
    rpc.call("evm_setAutomine", True)
    rpc.call("evm_mine")


def endpoints(deployed: Deployed) -> list[str]:
    """What `setEndpoint` said since the run was made, in the order of the chain."""
    reader = deployed.registry()
    reader.poll()
    return [event.uri for event in reader.events if isinstance(event, ChainEndpointSet)][1:]


def restarted(sender: Sender, path: Path) -> Sender:
    """The same account in a new process, as far as the outbox can tell."""
    return Sender(sender.rpc, sender.key, sender.run, outbox=Outbox(path))


SCRIPT = """
import os, signal, sys
from pathlib import Path
from flb.chain.outbox import Outbox
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
url, key, run, path, where = sys.argv[1:]
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
push = Sender.push
def before(self, raw): kill()
def after(self, raw): push(self, raw); kill()
Sender.push = before if where == "before" else after
sender = Sender(Rpc(url), bytes.fromhex(key), bytes.fromhex(run), outbox=Outbox(Path(path)))
sender.set_endpoint("killed:1", bytes(32), bytes(32))
"""


def killed(deployed: Deployed, path: Path, where: str) -> None:
    """A process that dies between writing a `setEndpoint` down and sending it, or between sending and the receipt."""
    key, run = deployed.aggregator.key.hex(), deployed.run.hex()
    command = [sys.executable, "-c", SCRIPT, deployed.rpc.url, key, run, str(path), where]
    done = subprocess.run(command, check=False, timeout=60, env={**os.environ, "PYTHONPATH": os.curdir})
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("where", ["before", "after"])
def test_send__process_killed_around_the_sending__does_the_call_once(
    deployed: Deployed, by_hand: Rpc, tmp_path: Path, where: str
) -> None:
    aggregator, path = deployed.aggregator, tmp_path / "outbox.sqlite"
    start = count(by_hand, aggregator.address, "latest")
    killed(deployed, path, where)
    assert count(by_hand, aggregator.address, "pending") == start + (where == "after")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(restarted(aggregator, path).set_endpoint, "killed:1", bytes(32), bytes(32))
        await_pending(aggregator, start + 1, sending)
        mine(by_hand, 1)
        sending.result(10)
    assert endpoints(deployed) == ["killed:1"]
    assert count(by_hand, aggregator.address, "latest") == start + 1
    assert Outbox(path).pending(31337, aggregator.address) == ()


def test_send__killed_call_is_not_wanted_any_more__leaves_no_gap(deployed: Deployed, tmp_path: Path) -> None:
    """The next start sends something else; what was written down comes first, as its own simulation allows it."""
    path = tmp_path / "outbox.sqlite"
    killed(deployed, path, "before")
    restarted(deployed.aggregator, path).set_endpoint("other:2", ROOT, ROOT)
    assert endpoints(deployed) == ["killed:1", "other:2"]


def test_send__effect_is_on_chain_by_now__is_not_repeated(deployed: Deployed, tmp_path: Path) -> None:
    """A roll was written down and never sent; by the next start the round is sealed. Its nonce is free again."""
    deployed.owner.start()
    path, aggregator = tmp_path / "outbox.sqlite", deployed.aggregator
    start = count(deployed.rpc, aggregator.address, "latest")
    stale = a_roll(1)
    fields = (stale.record_digest, stale.adapter_digest, stale.updates_root, stale.scores_root, stale.payout_root,
              stale.accepted, stale.weight_sum)  # fmt: skip
    data = calldata("FLBRun", "roll", 1, fields)
    blank = Entry(31337, aggregator.address, start, deployed.run, data, 10**5, ())
    Outbox(path).add(replace(blank, attempts=(sign(blank, Fees(10**11, 10**9), aggregator.key),)))
    aggregator.roll(a_roll(1))
    with pytest.raises(ContractRefused, match="FLBWrongRound"):
        restarted(aggregator, path).roll(stale)
    assert Outbox(path).pending(31337, aggregator.address) == ()
    assert count(deployed.rpc, aggregator.address, "pending") == start + 1


def test_send__transaction_stuck_below_the_base_fee__is_replaced_and_done_once(
    deployed: Deployed, by_hand: Rpc, tmp_path: Path
) -> None:
    aggregator, path = restarted(deployed.aggregator, tmp_path / "outbox.sqlite"), tmp_path / "outbox.sqlite"
    start, waited = count(by_hand, aggregator.address, "latest"), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(aggregator.set_endpoint, "stuck:1", ROOT, ROOT)
        await_pending(aggregator, start + 1, sending)
        before = Outbox(path).pending(31337, aggregator.address)[0]
        for _ in range(LOOKS):
            held = Outbox(path).pending(31337, aggregator.address)
            asked = DEAR if held and len(held[0].attempts) == 1 else FAIR
            by_hand.call("hardhat_setNextBlockBaseFeePerGas", hex(asked))
            mine(by_hand, 1)
            waited.wait(0.05)
            if sending.done():
                break
        mined = sending.result(10)
    assert mined.tx != before.attempts[0].tx
    taken = by_hand.call("eth_getTransactionByHash", "0x" + mined.tx.hex())
    for key, old in (
        ("maxFeePerGas", before.attempts[0].fees.most),
        ("maxPriorityFeePerGas", before.attempts[0].fees.tip),
    ):
        assert int(taken[key], 16) * 8 >= old * 9
    assert int(taken["nonce"], 16) == start
    assert endpoints(deployed) == ["stuck:1"]
    assert Outbox(path).pending(31337, aggregator.address) == ()


def test_send__stuck_at_the_ceiling__offers_no_more_and_is_done_once(
    deployed: Deployed, by_hand: Rpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps a transaction out, a gap for example, an account is not emptied into its tip."""
    monkeypatch.setattr(fees, "CEILING", 1)
    aggregator, path = restarted(deployed.aggregator, tmp_path / "outbox.sqlite"), tmp_path / "outbox.sqlite"
    start, waited, looks = count(by_hand, aggregator.address, "latest"), threading.Event(), []
    replaced = Sender.replaced
    monkeypatch.setattr(Sender, "replaced", lambda *args: looks.append(replaced(*args)) or looks[-1])
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(aggregator.set_endpoint, "stuck:1", ROOT, ROOT)
        await_pending(aggregator, start + 1, sending)
        for _ in range(LOOKS):
            by_hand.call("hardhat_setNextBlockBaseFeePerGas", hex(DEAR if len(looks) < 2 else FAIR))
            mine(by_hand, 1)
            waited.wait(0.05)
            if sending.done():
                break
        mined = sending.result(10)
    assert len(looks) >= 2 and {len(entry.attempts) for entry in looks} == {1}
    assert mined.tx == looks[0].attempts[0].tx
    assert Outbox(path).pending(31337, aggregator.address) == ()


def test_send__dropped_while_somebody_waits__is_sent_again(deployed: Deployed, by_hand: Rpc) -> None:
    aggregator = deployed.aggregator
    start = count(by_hand, aggregator.address, "latest")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(aggregator.set_endpoint, "dropped:1", ROOT, ROOT)
        await_pending(aggregator, start + 1, sending)
        (waiting,) = by_hand.call("eth_getBlockByNumber", "pending", False)["transactions"]
        assert by_hand.call("hardhat_dropTransaction", waiting)
        await_pending(aggregator, start + 1, sending)
        mine(by_hand, 1)
        assert "0x" + sending.result(10).tx.hex() == waiting
    assert endpoints(deployed) == ["dropped:1"]


def test_send__first_of_two_dropped_after_its_caller_gave_up__the_gap_heals(
    deployed: Deployed, by_hand: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "RECEIPT_SECONDS", 0.2)
    aggregator = deployed.aggregator
    for name in ("first:1", "second:2"):
        with pytest.raises(ChainUnavailable, match="is not mined"):
            aggregator.set_endpoint(name, ROOT, ROOT)
    first = aggregator.outbox.pending(31337, aggregator.address)[0]
    assert by_hand.call("hardhat_dropTransaction", "0x" + first.attempts[0].tx.hex())
    monkeypatch.undo()
    by_hand.call("evm_setAutomine", True)
    aggregator.set_endpoint("third:3", ROOT, ROOT)
    assert endpoints(deployed) == ["first:1", "second:2", "third:3"]
    assert count(by_hand, aggregator.address, "latest") == count(by_hand, aggregator.address, "pending") == 3


def test_send__nonce_taken_by_another_process__goes_with_the_next(deployed: Deployed, by_hand: Rpc) -> None:
    """Another process with the same key pays more for the nonce; the call is not lost, and not done twice."""
    aggregator = deployed.aggregator
    start = count(by_hand, aggregator.address, "latest")
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(aggregator.set_endpoint, "mine:1", ROOT, ROOT)
        await_pending(aggregator, start + 1, sending)
        data = calldata("FLBRun", "setEndpoint", "theirs:2", ROOT, ROOT)
        blank = Entry(31337, aggregator.address, start, deployed.run, data, 200_000, ())
        theirs = sign(blank, Fees(10**12, 10**11), aggregator.key)
        by_hand.call("eth_sendRawTransaction", "0x" + theirs.raw.hex())
        mine(by_hand, 1)
        await_pending(aggregator, start + 2, sending)
        mine(by_hand, 1)
        sending.result(10)
    assert endpoints(deployed) == ["theirs:2", "mine:1"]


def test_send__blocks_at_an_interval__gets_into_one(deployed: Deployed, by_hand: Rpc) -> None:
    by_hand.call("evm_setIntervalMining", 200)
    assert deployed.aggregator.set_endpoint("interval:1", ROOT, ROOT).gas_used > 0
    assert endpoints(deployed) == ["interval:1"]


@pytest.mark.parametrize("arrived", [True, False], ids=["it arrived", "it did not"])
def test_send__chain_away_before_the_receipt__goes_on_where_it_was(
    deployed: Deployed, chain: LocalChain, by_hand: Rpc, tmp_path: Path, arrived: bool
) -> None:
    """However long the outage lasts: each try says that the chain is away, and the call is done once after it."""
    away = threading.Event()

    def forward(request: Any) -> bytes | None:
        if request["method"] == "eth_sendRawTransaction" and not away.is_set():
            away.set()
            if arrived:
                requests.post(chain.url, json=request, timeout=10)
        return (
            None if away.is_set() and not back.is_set() else requests.post(chain.url, json=request, timeout=10).content
        )

    back = threading.Event()
    with serving(forward) as url:
        path = tmp_path / "outbox.sqlite"
        there = deployed.aggregator
        aggregator = Sender(Rpc(url), there.key, there.run, outbox=Outbox(path))
        for _ in range(3):
            with pytest.raises(ChainUnavailable):
                aggregator.set_endpoint("away:1", ROOT, ROOT)
        assert len(Outbox(path).pending(31337, there.address)) == 1
        back.set()
        by_hand.call("evm_setAutomine", True)
        by_hand.call("evm_mine")
        aggregator.set_endpoint("away:1", ROOT, ROOT)
    assert endpoints(deployed) == ["away:1"]
    assert count(by_hand, there.address, "latest") == 1
