# SPDX-License-Identifier: Apache-2.0
"""A reorg makes a reader go back to the fork and no further, and leaves nothing of what was undone."""

import random
from dataclasses import replace
from typing import Any

import pytest

from flb.chain import registry
from flb.chain.registry import Registry
from flb.chain.rpc import Rpc
from flb.types import Block, Digest
from tests.chain.test_registry import assert_as_a_fresh_reader, back_to, begun
from tests.chains import Deployed, a_roll, mine

pytestmark = pytest.mark.chain


def read_since(monkeypatch: pytest.MonkeyPatch, reader: Registry) -> list[int]:
    """Numbers of the blocks whose logs a poll asks for, in their order."""
    asked: list[dict[str, str]] = []
    ask = Rpc.ask

    def spy(rpc: Rpc, url: str, method: str, *params: Any) -> Any:
        if method == "eth_getLogs":
            asked.append(params[0])
        return ask(rpc, url, method, *params)

    with monkeypatch.context() as patched:
        patched.setattr(Rpc, "ask", spy)
        reader.poll()
    numbers: list[int] = []
    for wanted in asked:
        if "blockHash" in wanted:
            block = reader.rpc.call("eth_getBlockByHash", wanted["blockHash"], False)
            numbers.append(int(block["number"], 16))
        else:
            numbers += range(int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16) + 1)
    return numbers


def test_poll__reorg_under_a_follower__reads_only_the_blocks_above_the_fork(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(deployed)
    reader = deployed.registry()
    for _ in range(3):
        mine(deployed.rpc, 1)
        reader.poll()
    fork = deployed.rpc.block_number()
    snapshot = deployed.rpc.call("evm_snapshot")
    deployed.aggregator.roll(a_roll(1))
    mine(deployed.rpc, 2)
    reader.poll()
    back_to(deployed, snapshot)
    deployed.aggregator.roll(a_roll(1))
    mine(deployed.rpc, 1)
    assert read_since(monkeypatch, reader) == [fork + 1, fork + 2]
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__fork_deep_below_the_newest_reads__starts_behind_the_last_event_that_holds(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(deployed)
    last = deployed.rpc.block_number()
    mine(deployed.rpc, 40)
    snapshot = deployed.rpc.call("evm_snapshot")
    deployed.aggregator.roll(a_roll(1))
    mine(deployed.rpc, 40)
    reader = deployed.registry()
    reader.poll()
    back_to(deployed, snapshot)
    mine(deployed.rpc, 90)
    assert read_since(monkeypatch, reader) == list(range(last + 1, deployed.rpc.block_number() + 1))
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__shorter_chain__asks_for_no_logs(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(deployed)
    mine(deployed.rpc, 5)
    snapshot = deployed.rpc.call("evm_snapshot")
    reader = deployed.registry()
    reader.poll()
    deployed.aggregator.roll(a_roll(1))
    reader.poll()
    back_to(deployed, snapshot)
    assert read_since(monkeypatch, reader) == []
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__event_of_another_fork_below_a_block_that_holds__is_read_again(deployed: Deployed) -> None:
    """As after a reorg between the header and the logs of a range."""
    begun(deployed)
    mine(deployed.rpc, 20)
    reader = deployed.registry()
    reader.poll()
    assert reader.cursor is not None
    wrong = Digest(b"\x66" * 32)
    event = reader.events[-1]
    reader.events[-1] = replace(event, place=replace(event.place, block=Block(event.place.block.number, wrong)))
    reader.cursor = Block(reader.cursor.number, wrong)
    reader.poll()
    assert_as_a_fresh_reader(reader, deployed)


@pytest.mark.parametrize("seed", range(3))
def test_poll__any_reorgs_one_after_the_other__is_as_a_fresh_reader(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    begun(deployed)
    monkeypatch.setattr(registry, "RANGE", 5)
    chance, snapshots = random.Random(seed), [deployed.rpc.call("evm_snapshot")]
    reader = deployed.registry()
    for _ in range(25):
        match chance.randrange(4):
            case 0:
                mine(deployed.rpc, chance.randrange(1, 12))
            case 1:
                opening = deployed.registry().poll().opening
                assert opening is not None
                deployed.aggregator.roll(a_roll(opening.round))
            case 2:
                snapshots.append(deployed.rpc.call("evm_snapshot"))
            case 3:
                at = chance.randrange(len(snapshots))
                back_to(deployed, snapshots[at])
                del snapshots[at:]
                snapshots.append(deployed.rpc.call("evm_snapshot"))
        reader.poll()
        assert_as_a_fresh_reader(reader, deployed)
