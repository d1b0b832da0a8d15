# SPDX-License-Identifier: Apache-2.0
"""`flb chain events` as a process beside the chain, also while that is reordered; the gas in `flb chain status`."""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flb.chain import abi, membership_calls
from flb.chain.deploy import Settings, create_run
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender, calldata
from flb.types import ZERO_ADDRESS, Address, Digest
from flb_cli.main import main
from tests.chains import ADAPTER, ROOT, SPEC, Deployed, a_roll, account, later, mine

pytestmark = pytest.mark.chain

PROMPT_SECONDS = 20
DATA = Digest(b"\x0d" * 32)
RUN = "0x" + "11" * 20


@contextmanager
def following(deployed: Deployed, *words: str) -> Iterator["queue.Queue[str]"]:
    """`flb chain events --follow` as a process; its lines as they come."""
    command = [sys.executable, "-m", "flb_cli.main", "chain", "events", "0x" + deployed.run.hex(), "--rpc",
               deployed.rpc.url, "--follow", *words]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line.rstrip("\n"))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield lines
        process.send_signal(signal.SIGINT)
        assert process.wait(PROMPT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        thread.join()


def until(lines: "queue.Queue[str]", event: str) -> list[dict[str, Any]]:
    """The objects up to one of this event."""
    found: list[dict[str, Any]] = []
    while not found or found[-1]["event"] != event:
        found.append(json.loads(lines.get(timeout=PROMPT_SECONDS)))
    return found


def test_events__followed_through_a_reorg__names_what_is_gone_and_what_came_instead(deployed: Deployed) -> None:
    node, other = deployed.nodes
    with following(deployed, "--json", "--link", "https://explorer.example/tx/{tx}") as lines:
        assert until(lines, "EndpointSet")[-1]["round"] == 0
        membership_calls.join(node, ZERO_ADDRESS)
        first = until(lines, "NodeJoined")[-1]
        assert first["link"] == "https://explorer.example/tx/" + first["tx"]
        snapshot = deployed.rpc.call("evm_snapshot")
        deployed.owner.start()
        membership_calls.register_dataset(node, node.address, DATA, 7)
        registered = until(lines, "DatasetRegistered")[-1]
        assert registered["round"] == 1
        assert registered["args"] == {"node": "0x" + node.address.hex(), "root": "0x" + DATA.hex(), "version": 1,
                                      "records": 7}  # fmt: skip
        assert deployed.rpc.call("evm_revert", snapshot)
        membership_calls.join(other, ZERO_ADDRESS)
        mine(deployed.rpc, 3)
        rewind, joined = until(lines, "NodeJoined")
        assert (rewind["event"], rewind["args"]) == ("Rewind", {"events": 2})
        assert rewind["block"] == first["block"] + 1
        assert (joined["args"]["node"], joined["round"]) == ("0x" + other.address.hex(), 0)


def test_events__followed_in_words__has_a_line_for_the_rewind(deployed: Deployed) -> None:
    with following(deployed) as lines:
        assert "round 1: AggregatorSet aggregator 0x" in lines.get(timeout=PROMPT_SECONDS)
        assert "before round 1: EndpointSet uri 127.0.0.1:7400" in lines.get(timeout=PROMPT_SECONDS)
        snapshot = deployed.rpc.call("evm_snapshot")
        deployed.owner.start()
        started = lines.get(timeout=PROMPT_SECONDS)
        assert "round 1: RunStarted" in started and "deadline 2" in started and "UTC" in started
        assert deployed.rpc.call("evm_revert", snapshot)
        assert lines.get(timeout=PROMPT_SECONDS).startswith("rewind: the chain was reordered, 1 events from block ")


@pytest.mark.parametrize(
    "template", ["https://x/{block}{nothing}", "{", "{0}", "{tx.__class__}", "{tx!r}", "{block:9}", "{}"]
)
def test_events__link_with_something_else__is_a_config_error(template: str) -> None:
    assert main(["chain", "events", "0x" + "11" * 20, "--link", template]) == 10


def say(capsys: pytest.CaptureFixture[str], deployed: Deployed, *words: str) -> str:
    """What `flb chain ...` prints about this run."""
    capsys.readouterr()
    assert main(["chain", words[0], "0x" + deployed.run.hex(), "--rpc", deployed.rpc.url, *words[1:]]) == 0
    return capsys.readouterr().out


def test_status__endpoint_with_control_signs__sends_none_to_the_terminal(
    deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.aggregator.set_endpoint("\x1b[2Jhost:1", Digest(bytes(32)), Digest(bytes(32)))
    for verb in ("status", "events"):
        out = say(capsys, deployed, verb)
        assert "?[2Jhost:1" in out and "\x1b" not in out


@pytest.mark.parametrize("words", [
    ["chain", "cancel-payout", RUN, "-1", "--keystore", "none"], ["chain", "cancel-payout", RUN, "4294967296"],
    ["chain", "events", RUN, "--confirmations", "-3"], ["chain", "status", RUN, "--deploy-block", "-1"],
    ["scores", RUN, "--round", "-5"],
])  # fmt: skip
def test_number__out_of_range__is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "is no number from 0 to 4294967295" in capsys.readouterr().err


def test_status__gas__is_what_the_receipts_say_by_role(
    deployed: Deployed, capsys: pytest.CaptureFixture[str], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    joined = [membership_calls.join(node, ZERO_ADDRESS).gas_used for node in deployed.nodes]
    started = deployed.owner.start().gas_used
    rolled = deployed.aggregator.roll(a_roll(1)).gas_used
    said = json.loads(say(capsys, deployed, "status", "--json"))
    gas = {role: (cost["transactions"], cost["gas"]) for role, cost in said["gas"].items()}
    assert gas == {
        "owner": (2, deployed.created.gas_used + started),
        "aggregator": (1, rolled),
        "admitter": (0, 0),
        "others": (2, sum(joined)),
    }
    assert all(cost["wei"] > cost["gas"] for role, cost in said["gas"].items() if role != "admitter")
    assert (said["phase"], said["payout"], said["admitter"]) == ("intake", None, None)
    asked: list[str] = []
    batch = Rpc.batch

    def spy(rpc: Rpc, method: str, items: list[str]) -> list[Any]:
        asked.extend(items)
        return batch(rpc, method, items)

    monkeypatch.setattr(Rpc, "batch", spy)
    assert json.loads(say(capsys, deployed, "status", "--json"))["gas"] == said["gas"]
    assert asked == [], "receipts that were read once are kept"
    words = say(capsys, deployed, "status")
    assert "phase      intake" in words and "gas        aggregator" in words


def test_status__run_with_a_token__says_where_payouts_stand(
    rpc: Rpc, factory: Address, capsys: pytest.CaptureFixture[str]
) -> None:
    owner, aggregator = account(rpc), account(rpc)
    made = owner.send(None, abi.load("FLBToken").bytecode)
    assert made.contract is not None
    settings = Settings(
        spec=SPEC, adapter=ADAPTER, steps=5, round_seconds=100, grace_seconds=50, owner=owner.address,
        aggregator=aggregator.address, admitter=owner.address, token=made.contract, min_round_seconds=10,
        payout_delay_seconds=60,
    )  # fmt: skip
    run, _ = create_run(owner, factory, settings)
    arguments = ["0x" + run.hex(), "--rpc", rpc.url]
    assert main(["chain", "status", *arguments]) == 0
    assert "payouts    none is active yet, 0 " in capsys.readouterr().out
    sender = Sender(rpc, owner.key, run)
    sender.start()
    later(rpc, 20)
    Sender(rpc, aggregator.key, run).roll(a_roll(1))
    sender.send(run, calldata("FLBRun", "cancelPayout", 1))
    assert main(["chain", "status", *arguments, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["payout"] == {
        "token": "0x" + made.contract.hex(), "delay_seconds": 60, "round": 0, "root": "0x" + "00" * 32,
        "cancelled": [1], "claimed": 0,
    }  # fmt: skip
    assert said["admitter"] == "0x" + owner.address.hex()
    assert main(["chain", "events", *arguments]) == 0
    assert "PayoutCancelled" in capsys.readouterr().out
