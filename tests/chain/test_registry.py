# SPDX-License-Identifier: Apache-2.0
"""Reading a run: ranges, confirmations, reorgs, and a chain that is away, another one, or empty again."""

from pathlib import Path
from typing import Any

import pytest

from flb import events as chain_events
from flb.chain import local, membership_calls, registry
from flb.chain.deploy import deploy_factory
from flb.chain.registry import Registry, call_view, find_deploy_block
from flb.chain.rpc import Rpc
from flb.errors import ChainUnavailable, LostChain
from flb.roster import RunView
from flb.types import ZERO_ADDRESS, Address, Digest, Domain
from tests.chains import ADAPTER, SPEC, Deployed, a_roll, account, cache, deploy, later, mine

pytestmark = pytest.mark.chain

ROOT = Digest(b"\x0d" * 32)


def begun(deployed: Deployed) -> Deployed:
    """Both nodes are members with datasets, and round 1 is open."""
    for node in deployed.nodes:
        membership_calls.join(node, ZERO_ADDRESS)
        membership_calls.register_dataset(node, node.address, ROOT, 7)
    deployed.owner.start()
    return deployed


def back_to(deployed: Deployed, snapshot: str) -> None:
    """Undo the chain's blocks."""
    assert deployed.rpc.call("evm_revert", snapshot)


def assert_as_a_fresh_reader(reader: Registry, deployed: Deployed) -> None:
    """Nothing of what the reader saw before may have stayed, and nothing may be missing."""
    fresh = deployed.registry(reader.confirmations)
    fresh.poll()
    assert (reader.events, reader.view, reader.cursor) == (fresh.events, fresh.view, fresh.cursor)


def test_poll__run_in_progress__is_what_the_transactions_did(deployed: Deployed) -> None:
    reader = deployed.registry()
    assert reader.poll().opening is None
    assert reader.view.uri == "127.0.0.1:7400"
    begun(deployed)
    view = reader.poll()
    assert view.opening is not None
    assert view.opening.base == ADAPTER
    assert view.spec == SPEC
    assert sorted(view.members) == sorted(node.address for node in deployed.nodes)
    assert {member.records for member in view.opening.roster} == {7}
    assert view.aggregator == deployed.aggregator.address
    roll = a_roll(1)
    deployed.aggregator.roll(roll)
    assert [event.record_digest for event in reader.poll().rolls] == [roll.record_digest]
    assert call_view(deployed.rpc, deployed.run, "head")[:2] == (2, 1)
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__nothing_new__reads_no_logs_again(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = deployed.registry()
    reader.poll()
    asked: list[str] = []
    call = Rpc.call

    def spy(rpc: Rpc, method: str, *params: Any) -> Any:
        asked.append(method)
        return call(rpc, method, *params)

    monkeypatch.setattr(Rpc, "call", spy)
    before = list(reader.events)
    reader.poll()
    assert asked == ["eth_blockNumber", "eth_getBlockByNumber"]
    assert reader.events == before


@pytest.mark.parametrize("length", [1, 2, 7])
def test_poll__short_ranges__give_the_same_events(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    begun(deployed)
    deployed.aggregator.roll(a_roll(1))
    whole = deployed.registry()
    whole.poll()
    monkeypatch.setattr(registry, "RANGE", length)
    reader = deployed.registry()
    assert reader.poll() == whole.view
    assert reader.events == whole.events
    assert reader.cursor == whole.cursor
    kinds = [type(event) for event in reader.events]
    assert kinds[-2:] == [chain_events.ChainRunStarted, chain_events.ChainRoundRolled]
    assert len(kinds) == 8


def test_poll__block_mined_again_with_another_hash__follows(deployed: Deployed) -> None:
    begun(deployed)
    reader = deployed.registry()
    reader.poll()
    snapshot = deployed.rpc.call("evm_snapshot")
    gone, kept = a_roll(1), a_roll(1)
    deployed.aggregator.roll(gone)
    assert reader.poll().rolls[-1].record_digest == gone.record_digest
    before = reader.cursor
    back_to(deployed, snapshot)
    deployed.aggregator.roll(kept)
    view = reader.poll()
    assert [event.record_digest for event in view.rolls] == [kept.record_digest]
    assert before is not None
    assert reader.cursor is not None
    assert reader.cursor.number == before.number
    assert reader.cursor.hash != before.hash
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__shorter_chain_after_a_reorg__forgets_the_roll(deployed: Deployed) -> None:
    begun(deployed)
    snapshot = deployed.rpc.call("evm_snapshot")
    reader = deployed.registry()
    deployed.aggregator.roll(a_roll(1))
    assert len(reader.poll().rolls) == 1
    back_to(deployed, snapshot)
    view = reader.poll()
    assert view.rolls == ()
    assert view.opening is not None
    assert view.opening.round == 1
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__longer_chain_after_a_reorg__forgets_the_member(deployed: Deployed) -> None:
    snapshot = deployed.rpc.call("evm_snapshot")
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    reader = deployed.registry()
    assert list(reader.poll().members) == [deployed.nodes[0].address]
    back_to(deployed, snapshot)
    membership_calls.join(deployed.nodes[1], ZERO_ADDRESS)
    mine(deployed.rpc, 5)
    assert list(reader.poll().members) == [deployed.nodes[1].address]
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__reorg_between_two_requests__keeps_nothing_stale(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cursor is still there when it is checked and gone when the new blocks are read."""
    begun(deployed)
    snapshot = deployed.rpc.call("evm_snapshot")
    deployed.aggregator.roll(a_roll(1))
    reader = deployed.registry()
    reader.poll()
    mine(deployed.rpc, 1)
    end = hex(deployed.rpc.block_number())
    call = Rpc.call

    def reorder_first(rpc: Rpc, method: str, *params: Any) -> Any:
        if (method, params[:1]) == ("eth_getBlockByNumber", (end,)):
            monkeypatch.undo()
            back_to(deployed, snapshot)
            mine(deployed.rpc, 4)
        return call(rpc, method, *params)

    monkeypatch.setattr(Rpc, "call", reorder_first)
    with pytest.raises(ChainUnavailable, match="reordered while it was read: trying again"):
        reader.poll()
    assert reader.poll().rolls == ()
    assert_as_a_fresh_reader(reader, deployed)


def test_poll__confirmations__believes_what_lies_that_deep(deployed: Deployed) -> None:
    reader = deployed.registry(confirmations=3)
    assert reader.poll() == RunView()
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    for _ in range(3):
        assert reader.poll().members == {}
        mine(deployed.rpc, 1)
    assert list(reader.poll().members) == [deployed.nodes[0].address]


def test_poll__reorg_above_the_confirmed_block__changes_nothing(deployed: Deployed) -> None:
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    mine(deployed.rpc, 1)
    snapshot = deployed.rpc.call("evm_snapshot")
    membership_calls.join(deployed.nodes[1], ZERO_ADDRESS)
    mine(deployed.rpc, 1)
    reader = deployed.registry(confirmations=3)
    seen = reader.poll()
    cursor = reader.cursor
    back_to(deployed, snapshot)
    mine(deployed.rpc, 2)
    assert reader.poll() == seen
    assert reader.cursor == cursor
    assert list(seen.members) == [deployed.nodes[0].address]


def test_poll__chain_stopped_then_restarted_empty__is_unavailable_then_lost(tmp_path: Path) -> None:
    folder = local.install(cache(), print)
    with (tmp_path / "chain.log").open("wb") as log:
        with local.running(folder, log) as first:
            port = int(first.url.rsplit(":", 1)[1])
            deployed = begun(deploy(Rpc(first.url), deploy_factory(account(Rpc(first.url)))))
            reader = deployed.registry()
            reader.poll()
        with pytest.raises(ChainUnavailable):
            reader.poll()
        assert reader.view.opening is not None, "what was read stays while the chain is away"
        with local.running(folder, log, port):
            for reading in (reader, deployed.registry()):
                with pytest.raises(LostChain, match="is not on it: a local chain that was restarted is empty"):
                    reading.poll()
            mine(deployed.rpc, 50)  # longer than the chain that is gone
            with pytest.raises(LostChain):
                reader.poll()
            with pytest.raises(LostChain):
                find_deploy_block(deployed.rpc, deployed.run)


def test_poll__other_chain_id_or_deploy_block_ahead__is_lost(deployed: Deployed) -> None:
    with pytest.raises(LostChain):
        Registry(deployed.rpc, Domain(1, deployed.run), deployed.created.block.number).poll()
    with pytest.raises(LostChain):
        Registry(deployed.rpc, deployed.domain, deployed.rpc.block_number() + 1).poll()


def test_find_deploy_block__run__is_the_block_of_its_creation(deployed: Deployed) -> None:
    assert find_deploy_block(deployed.rpc, deployed.run) == deployed.created.block.number
    for _ in range(9):
        later(deployed.rpc, 1)  # Hardhat has no code to show inside a range that hardhat_mine made
    assert find_deploy_block(deployed.rpc, deployed.run) == deployed.created.block.number


def test_find_deploy_block__address_without_code__is_lost(rpc: Rpc) -> None:
    with pytest.raises(LostChain):
        find_deploy_block(rpc, Address(b"\x77" * 20))


def test_call_view__member__has_the_slot_of_the_contract(deployed: Deployed) -> None:
    node = deployed.nodes[0]
    membership_calls.join(node, ZERO_ADDRESS)
    membership_calls.register_dataset(node, node.address, ROOT, 7)
    shown = "0x" + node.address.hex()
    # join and registration count as messages
    assert call_view(deployed.rpc, deployed.run, "member", shown) == (node.address, 2, 1, 1, 0)
    assert call_view(deployed.rpc, deployed.run, "windows") == (100, 50, 0, 0)
