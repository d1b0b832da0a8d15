# SPDX-License-Identifier: Apache-2.0
"""`flb chain` and `flb account fund` against a real chain, and `flb chain up` as a process under signals."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from flb import keystore
from flb.chain import membership_calls
from flb.chain.events import from_json
from flb.chain.rpc import Rpc
from flb.errors import ChainUnavailable, ChildFailed, ContractRefused, KeystoreError, LostChain, PortTaken
from flb.types import ZERO_ADDRESS, Digest
from flb_cli.main import main
from tests.chains import ADAPTER, ROOT, SPEC, STEPS, Deployed, a_roll, later

pytestmark = pytest.mark.chain

NOWHERE = "0x" + "77" * 20
STOP_SECONDS = 5.0


def flb(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and error output of a command."""
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def owner_words(deployed: Deployed, tmp_path: Path) -> list[object]:
    """Run, endpoint, keystore and password file of the owner, as words of a command."""
    keystore.create(tmp_path / "owner.json", b"x", deployed.owner.key, rounds=1_000)
    (tmp_path / "password").write_text("x\n")
    run = "0x" + deployed.run.hex()
    files = ["--keystore", tmp_path / "owner.json", "--password-file", tmp_path / "password"]
    return [run, "--rpc", deployed.rpc.url, *files]


def test_status__run_from_deploy_to_end__says_where_it_stands(
    deployed: Deployed, owner_words: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chain", "status", *owner_words[:3]]

    def status() -> Any:
        code, out, _ = flb(capsys, *words, "--json")
        assert code == 0
        return json.loads(out)

    node = deployed.nodes[0]
    membership_calls.join(node, ZERO_ADDRESS)
    membership_calls.register_dataset(node, node.address, Digest(b"\x0d" * 32), 7)
    said = status()
    assert (said["state"], said["sealed"], said["steps"], said["open"]) == ("not started", 0, STEPS, None)
    assert said["spec"] == "0x" + SPEC.hex()
    assert said["adapter"] == "0x" + ADAPTER.hex()
    assert said["owner"] == "0x" + deployed.owner.address.hex()
    assert said["endpoint"]["uri"] == "127.0.0.1:7400"
    assert [(member["node"], member["records"]) for member in said["members"]] == [("0x" + node.address.hex(), 7)]
    code, out, _ = flb(capsys, "chain", "start", *owner_words)
    assert code == 0
    assert out.startswith("round 1 is open: transaction 0x")
    roll = a_roll(1)
    deployed.aggregator.roll(roll)
    said = status()
    assert (said["state"], said["sealed"], said["open"]["round"], said["open"]["step"]) == ("open", 1, 2, 2)
    assert said["adapter"] == "0x" + roll.adapter_digest.hex()
    code, out, _ = flb(capsys, "chain", "finish", *owner_words, "--json")
    assert code == 0
    assert json.loads(out)["gas_used"] > 21_000
    assert status()["state"] == "finishing"
    later(deployed.rpc, 151)
    deployed.aggregator.roll(a_roll(2))
    said = status()
    assert (said["state"], said["sealed"], said["open"]) == ("finished", 2, None)


def test_status__in_words__names_run_round_and_members(
    deployed: Deployed, owner_words: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["chain", "status", *owner_words[:3]]
    code, out, err = flb(capsys, *words)
    assert code == 0
    assert "not started" in out
    assert "members    0" in out
    assert "flb chain start" in err
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    deployed.owner.start()
    code, out, err = flb(capsys, *words, "--deploy-block", deployed.created.block.number)
    assert "open       round 1, step 1, intake closes " in out
    assert "UTC" in out
    assert err == ""
    assert "0x" + deployed.nodes[0].address.hex() + "  0 records" in out


def test_events__run__are_json_lines_that_read_back(
    deployed: Deployed, owner_words: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    deployed.owner.start()
    reader = deployed.registry()
    reader.poll()
    for extra in ([], ["--deploy-block", str(deployed.created.block.number)]):
        code, out, _ = flb(capsys, "chain", "events", *owner_words[:3], *extra, "--json")
        assert code == 0
        lines = [json.loads(line) for line in out.splitlines()]
        assert [from_json(line) for line in lines] == reader.events
        assert all({"event", "block", "tx", "args"} <= line.keys() for line in lines)
        assert [line["round"] for line in lines][-2:] == [0, 1]


def test_start__refused_or_impossible__ends_with_the_code_of_its_fault(
    deployed: Deployed, owner_words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keystore.create(tmp_path / "node.json", b"x", deployed.nodes[0].key, rounds=1_000)
    of_node = [tmp_path / "node.json" if word == tmp_path / "owner.json" else word for word in owner_words]
    code, out, err = flb(capsys, "chain", "start", *of_node, "--json")
    assert code == ContractRefused.exit_code
    assert "FLBUnauthorized(caller=0x" in err
    assert json.loads(out)["code"] == "contract-refused"
    elsewhere = [NOWHERE, *owner_words[1:]]
    assert flb(capsys, "chain", "start", *elsewhere)[0] == LostChain.exit_code
    for verb in ("status", "events"):
        assert flb(capsys, "chain", verb, *elsewhere[:3])[0] == LostChain.exit_code
        unreachable = [owner_words[0], "--rpc", "http://127.0.0.1:1"]
        assert flb(capsys, "chain", verb, *unreachable)[0] == ChainUnavailable.exit_code
    (tmp_path / "password").write_text("wrong")
    assert flb(capsys, "chain", "start", *owner_words)[0] == KeystoreError.exit_code


def test_fund__local_chain__gives_coins_and_says_how_many(rpc: Rpc, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = flb(capsys, "account", "fund", NOWHERE, "--rpc", rpc.url, "--json")
    assert code == 0
    wei = int(json.loads(out)["wei"])
    assert wei >= 10**20
    assert wei == int(rpc.call("eth_getBalance", NOWHERE, "latest"), 16)


def up(tmp_path: Path, *words: str) -> "subprocess.Popen[str]":
    """`flb chain up` as a process of its own."""
    command = [sys.executable, "-m", "flb_cli.main", "chain", "up", "--cache", str(tmp_path / "cache"), *words]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: "subprocess.Popen[str]", number: int) -> tuple[int, str, str]:
    """Send the signal; the process must end in time, and all its children with it."""
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=STOP_SECONDS + 5)
    assert time.monotonic() - began < STOP_SECONDS
    _, alive = psutil.wait_procs(children, timeout=1)
    assert not alive
    return process.returncode, out, err


def working(process: psutil.Process) -> bool:
    """Whether it lives; a zombie that nobody collects, as in a container without an init, does not."""
    try:
        return process.is_running() and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def await_child(process: "subprocess.Popen[str]") -> psutil.Process:
    """The node, as soon as it is there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        children = psutil.Process(process.pid).children()
        if children:
            return children[0]
        time.sleep(0.005)
    raise AssertionError("no child appeared")


def test_up__until_sigterm__serves_a_chain_and_ends_with_zero(tmp_path: Path) -> None:
    process = up(tmp_path, "--port", "0", "--block-ms", "100", "--json")
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert sorted(said) == ["chain_id", "pid", "url"]
    assert said["pid"] == process.pid
    rpc = Rpc(said["url"])
    assert rpc.chain_id() == said["chain_id"] == 31337
    assert main(["account", "fund", NOWHERE, "--rpc", said["url"]]) == 0
    assert int(rpc.call("eth_getBalance", NOWHERE, "latest"), 16) == 100 * 10**18
    assert ended(process, signal.SIGTERM) == (0, "", "")
    with pytest.raises(ChainUnavailable):
        rpc.chain_id()


def test_up__listen__serves_reads_there_and_nothing_else(tmp_path: Path) -> None:
    process = up(tmp_path, "--port", "0", "--listen", "127.0.0.1:0", "--json")
    assert process.stdout is not None
    said = json.loads(process.stdout.readline())
    assert sorted(said) == ["chain_id", "filtered_url", "pid", "url"] and said["filtered_url"] != said["url"]
    filtered = Rpc(said["filtered_url"])
    assert filtered.chain_id() == 31337 and Rpc(said["url"]).call("eth_accounts")
    for method in ("eth_accounts", "evm_mine", "hardhat_metadata"):
        with pytest.raises(ChainUnavailable, match=f"the method {method} does not pass the filter"):
            filtered.call(method)
    assert ended(process, signal.SIGTERM) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_up__signal_while_starting__ends_with_zero_and_leaves_no_child(tmp_path: Path, number: int) -> None:
    process = up(tmp_path, "--port", "0")
    child = await_child(process)
    assert ended(process, number) == (0, "", "")
    assert not child.is_running()


def test_up__killed_without_a_chance_to_stop__takes_the_node_with_it(tmp_path: Path) -> None:
    process = up(tmp_path, "--port", "0", "--json")
    assert process.stdout is not None
    url = json.loads(process.stdout.readline())["url"]
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate(timeout=STOP_SECONDS)
    deadline = time.monotonic() + STOP_SECONDS
    while any(working(child) for child in children):
        assert time.monotonic() < deadline, "the node outlived the command"
        time.sleep(0.02)
    with pytest.raises(ChainUnavailable):
        Rpc(url).chain_id()


def test_up__node_that_dies__is_reported(tmp_path: Path) -> None:
    process = up(tmp_path, "--port", "0")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("http://127.0.0.1:")
    await_child(process).kill()
    _, err = process.communicate(timeout=10)
    assert process.returncode == ChildFailed.exit_code
    assert "the local chain ended: its log is " in err


def test_up__port_in_use__ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = up(tmp_path, "--port", str(taken.getsockname()[1]), "--json")
        out, err = process.communicate(timeout=30)
    assert process.returncode == PortTaken.exit_code
    assert json.loads(out)["code"] == "port-taken"
    assert "stop what listens there, or change --port" in err


@pytest.mark.parametrize("words", [["--port", "65536"], ["--port", "x"], ["--block-ms", "0"], ["--block-ms", "-5"]])
def test_up__number_out_of_range__is_a_usage_error(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["chain", "up", *words])
    assert caught.value.code == 2
    assert "give " in capsys.readouterr().err
