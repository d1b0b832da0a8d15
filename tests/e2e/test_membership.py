# SPDX-License-Identifier: Apache-2.0
"""Nodes without a single coin: they join by invite, commit, deliver, rotate a key and leave, all by relay."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flb import keystore
from flb.chain.membership_calls import read_slot
from flb.events import ChainNodeJoined
from flb.membership import Status
from flb_cli.federation import Federation
from tests.e2e.conftest import Make

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def federation(make: Make) -> Iterator[Federation]:
    """A run whose nodes are members, round 1 sealed, aggregator and chain up."""
    with make("coinless") as made:
        made.start()
        made.await_view(lambda view: len(view.rolls) >= 1, 120)
        yield made


def flb(federation: Federation, *words: object, node: str, expect: int = 0) -> Any:
    """A command as one of the nodes; its JSON."""
    keys = federation.folder / "keys"
    command = [sys.executable, "-m", "flb_cli.main", *words, "--rpc", federation.rpc().url, "--json", "--keystore",
               keys / f"{node}.json", "--password-file", keys / f"{node}.password"]  # fmt: skip
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=90, check=False,
                          env={**os.environ, "PYTHONPATH": os.getcwd()})  # fmt: skip
    assert done.returncode == expect and "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


def test_node__without_coins__joins_by_invite_registers_and_delivers(federation: Federation) -> None:
    assert federation.registry is not None
    joined = [event for event in federation.registry.events if isinstance(event, ChainNodeJoined)]
    assert len(joined) == 3 and all(event.relayed for event in joined)
    view = federation.view()
    assert view.rolls[0].accepted == 3
    for name in ("node-1", "node-2", "node-3"):
        node = keystore.stored_address(federation.folder / "keys" / f"{name}.json")
        assert federation.rpc().quantity("eth_getBalance", "0x" + node.hex(), "latest") == 0
        assert read_slot(federation.rpc(), federation.registry.domain.run, node).datasets == 1


def test_member__without_coins__rotates_its_key_and_leaves_with_the_new_one(
    federation: Federation, tmp_path: Path
) -> None:
    assert federation.registry is not None
    run, node = federation.registry.domain.run, keystore.stored_address(federation.folder / "keys" / "node-1.json")
    federation.account("second", coins=False)
    new = federation.folder / "keys" / "second.json"
    said = flb(federation, "chain", "rotate-key", "0x" + run.hex(), new, "--relay", node="node-1")
    assert said["relayed"] and said["key"] == "0x" + keystore.stored_address(new).hex()
    old = flb(federation, "chain", "leave", "0x" + run.hex(), "--relay", node="node-1", expect=20)
    assert "FLBBadSignature" in old["error"]
    flb(federation, "chain", "leave", "0x" + run.hex(), "--node", "0x" + node.hex(), "--relay", node="second")
    slot = read_slot(federation.rpc(), run, node)
    assert (slot.status, slot.key) == (Status.LEFT, keystore.stored_address(new))
    assert node not in federation.view().members


def test_remove__of_a_node_without_coins__voids_its_invite(federation: Federation) -> None:
    assert federation.owner is not None and federation.registry is not None
    run, node = federation.registry.domain.run, keystore.stored_address(federation.folder / "keys" / "node-2.json")
    invite = federation.invite("node-2")
    federation.owner.remove(node)
    words = ["chain", "join", "0x" + run.hex(), "--invite", invite, "--relay"]
    refused = flb(federation, *words, node="node-2", expect=20)
    assert "FLBNotInvited" in refused["error"] or "FLBFinished" in refused["error"]
    assert read_slot(federation.rpc(), run, node).removals == 1


def test_aggregator__relays__in_few_transactions_and_keeps_what_it_spent(federation: Federation) -> None:
    kept = json.loads((federation.folder / "aggregator" / "relay.json").read_text())
    assert 0 < kept["spent"]["joins"] < 3 * 80_000 and kept["spent"]["members"] > 0
    assert kept["prefixes"] == {} and len(kept["nodes"]) == 3
