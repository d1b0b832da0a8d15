# SPDX-License-Identifier: Apache-2.0
"""A federation that pays, with real processes: standings outlive a killed aggregator, and its payees are paid."""

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from flb import errors, keystore
from flb.chain import payout_calls
from flb.types import Address
from flb_cli import demo_payout
from flb_cli.federation import Federation
from tests.e2e.conftest import SETTINGS, Make

pytestmark = pytest.mark.e2e

PER_ROUND, STEPS = 2100, 3


def flb(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command."""
    command = [sys.executable, "-m", "flb_cli.main", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout or "{}")


def address(federation: Federation, name: str) -> Address:
    return keystore.stored_address(federation.folder / "keys" / f"{name}.json")


def test_run__aggregator_killed_between_rounds__pays_by_the_standings_of_all_rounds(make: Make) -> None:
    with make("paying") as federation:
        run = {**SETTINGS["run"], "steps": STEPS, "payout": {"per_round": PER_ROUND, "delay_seconds": 0}}
        federation.settings = {**SETTINGS, "run": run}
        federation.test_token = PER_ROUND * STEPS
        federation.start()
        federation.await_view(lambda view: len(view.rolls) == 1, 120)
        aggregator = federation.children["aggregator"].process
        aggregator.send_signal(signal.SIGKILL)
        aggregator.wait()
        federation.spawn("aggregator")
        federation.await_view(lambda view: view.finished, 120)
        assert federation.registry is not None and federation.chain is not None
        named = ("0x" + federation.registry.domain.run.hex(), "--rpc", federation.chain.url)
        code, scores = flb("scores", *named)
        assert (code, scores["round"]) == (0, federation.view().rolls[-1].round)
        weights = {address(federation, f"node-{index + 1}"): 6 + index for index in range(3)}
        assert {
            bytes.fromhex(line["node"][2:]): (int(line["total"]), int(line["payout"])) for line in scores["nodes"]
        } == {node: (STEPS * weight, STEPS * (PER_ROUND * weight // 21)) for node, weight in weights.items()}
        paid = demo_payout.pay(federation, "node-1")
        assert (paid["amount"], paid["payee"]) == ("1800", "0x" + address(federation, "node-1").hex())
        assert paid["activated"] and paid["tx"]
        keys = federation.folder / "keys"
        payer = ("--keystore", keys / "owner.json", "--password-file", keys / "owner.password")
        second = address(federation, "node-2")
        code, claimed = flb("claim", *named, "--node", "0x" + second.hex(), *payer)
        assert (code, claimed["amount"], claimed["activated"]) == (0, "2100", None)
        assert payout_calls.read_balance(federation.rpc(), Address(bytes.fromhex(paid["token"][2:])), second) == 2100
        code, report = flb("verify", federation.folder)
        assert (code, report["verdict"]) == (0, "exact")
        assert (
            f"scores and payouts of {STEPS} of {STEPS} rounds were recomputed to the roots on chain" in report["proved"]
        )
        assert federation.children["node-1"].process.wait(60) == 0
        gone = federation.children["aggregator"].process
        gone.send_signal(signal.SIGKILL)
        gone.wait()
        third = ("claim", *named, "--node", "0x" + address(federation, "node-3").hex(), *payer)
        assert flb(*third)[0] == errors.Unavailable.exit_code, "without an aggregator there is no proof"
        code, claimed = flb(*third, "--blobs", federation.folder / "node-1")
        assert (code, claimed["amount"]) == (0, "2400"), "but every node keeps what a proof comes from"
