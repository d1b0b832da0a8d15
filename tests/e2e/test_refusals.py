# SPDX-License-Identifier: Apache-2.0
"""What a user does wrong, process by process: one sentence, its own exit code, no traceback, nothing left behind."""

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flb import keystore
from flb.chain import local, membership_calls
from flb.chain.sender import Sender
from flb.membership import invite_from_text
from flb.types import ZERO_ADDRESS
from flb_cli.federation import Federation
from tests.chains import cache
from tests.e2e.conftest import Make
from tests.tiny_model import build

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def started(make: Make) -> Iterator[Federation]:
    """A run that is open, with an aggregator and no node."""
    with make("started") as federation:
        federation.start_chain()
        federation.deploy()
        federation.spawn("aggregator")
        assert federation.owner is not None
        federation.await_view(lambda view: bool(view.uri), 30)
        federation.owner.start()
        yield federation


def daemon(federation: Federation, name: str, changes: dict[str, Any], tmp_path: Path) -> tuple[int, str]:
    """Run a daemon with a changed config in its folder; returns exit code and the sentence."""
    config = yaml.safe_load((federation.folder / f"{name}.yaml").read_text())
    for key, value in changes.items():
        section, _, item = key.rpartition(".")
        (config[section] if section else config)[item] = value
    path = federation.folder / f"changed-{secrets.token_hex(4)}.yaml"
    path.write_text(yaml.safe_dump(config))
    package = "flb_aggregator" if name == "aggregator" else "flb_node"
    done = subprocess.run(
        [sys.executable, "-m", package, "--config", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"\[[a-z-]+\]$", last), done.stderr
    return done.returncode, last


AGGREGATOR: list[tuple[dict[str, Any], int, str]] = [
    ({"sever": {}}, 10, "unknown key sever: did you mean server?"),
    ({"chain_record": False}, 10, "a daemon always records on the chain"),
    ({"server.listen": "0.0.0.0:50051", "server.tls": False}, 21, "which other machines can reach"),
    ({"server.listen": "0.0.0.0:50051"}, 10, "no node can call 0.0.0.0:50051"),
    ({"server.advertise": "here"}, 10, "server.advertise is 'here'"),
    ({"server.listen": "here"}, 10, "give host and port"),
    ({"server.keystore": "keys/none.json", "server.workdir": "w1"}, 11, "is missing: make one with flb account new"),
    ({"server.password_file": "keys/owner.password", "server.workdir": "w2"}, 11, "does not open: check the password"),
    ({"server.workdir": "aggregator"}, 21, "another process works in"),
    ({"server.workdir": "empty"}, 10, "holds no spec.json"),
]


@pytest.mark.parametrize(("changes", "code", "words"), AGGREGATOR)
def test_aggregator__bad_setting__is_one_sentence(
    started: Federation, tmp_path: Path, changes: dict[str, Any], code: int, words: str
) -> None:
    found, sentence = daemon(started, "aggregator", changes, tmp_path)
    assert (found, words in sentence) == (code, True), sentence


def twin(started: Federation, name: str) -> str:
    """A work folder like the aggregator's, for a second process."""
    folder = started.folder / name
    folder.mkdir()
    for file in ("spec.json", "run.json"):
        (folder / file).write_bytes((started.folder / "aggregator" / file).read_bytes())
    return name


def test_aggregator__port_taken__is_named(started: Federation, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        changes = {"server.listen": listen, "server.workdir": twin(started, "w3")}
        code, sentence = daemon(started, "aggregator", changes, tmp_path)
    assert code == 15 and f"{listen} is taken" in sentence


def test_aggregator__key_of_somebody_else__is_refused(started: Federation, tmp_path: Path) -> None:
    changes = {
        "server.keystore": "keys/owner.json",
        "server.password_file": "keys/owner.password",
        "server.workdir": twin(started, "w4"),
        "server.listen": f"127.0.0.1:{local.free_port()}",
    }
    code, sentence = daemon(started, "aggregator", changes, tmp_path)
    assert code == 20 and "is not the run's aggregator" in sentence


@pytest.mark.parametrize("name", ["aggregator", "node-1"])
def test_daemon__chain_unreachable__is_one_sentence(started: Federation, tmp_path: Path, name: str) -> None:
    changes: dict[str, Any] = {"chain.rpc": f"http://127.0.0.1:{local.free_port()}"}
    if name == "aggregator":
        changes["server.workdir"] = twin(started, "w5")
    code, sentence = daemon(started, name, changes, tmp_path)
    assert code == 61 and "does not answer: start it, or correct chain.rpc" in sentence


NODE: list[tuple[str, str, int, str]] = [
    ("missing", "", 12, "does not exist"),
    ("empty", "", 12, "holds no example"),
    ("malformed", '{"prompt": "a", "completion": "b"}\n{"prompt": 1}\n', 12, "line 2"),
    ("binary", "\udcff\n", 12, "line 1"),
]


@pytest.mark.parametrize(("name", "text", "code", "words"), NODE)
def test_node__bad_dataset__names_the_line(
    started: Federation, tmp_path: Path, name: str, text: str, code: int, words: str
) -> None:
    path = tmp_path / f"{name}.jsonl"
    if name != "missing":
        path.write_text(text, errors="surrogateescape")
    found, sentence = daemon(started, "node-1", {"dataset_name": str(path)}, tmp_path)
    assert (found, words in sentence) == (code, True), sentence


def test_node__base_model_missing__is_named(started: Federation, tmp_path: Path) -> None:
    code, sentence = daemon(started, "node-1", {"model.model_path": str(tmp_path / "none")}, tmp_path)
    assert code == 13 and "no *.safetensors" in sentence


def test_node__another_base_model__is_refused_before_training(started: Federation, tmp_path: Path) -> None:
    other = build(tmp_path / "other", seed=1)
    code, sentence = daemon(started, "node-1", {"model.model_path": str(other)}, tmp_path)
    assert code == 14 and "is not this run's" in sentence


def test_node__data_that_the_run_cannot_use__is_told_before_it_joins(started: Federation, tmp_path: Path) -> None:
    """The run cuts records at 64 tokens, and of these nothing is left to learn."""
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "why " * 40, "completion": "so"}) + "\n")
    code, sentence = daemon(started, "node-3", {"dataset_name": str(path)}, tmp_path)
    assert code == 12 and "each of the 1 examples has a prompt of 64 tokens or more: shorten the prompts" in sentence
    node = keystore.stored_address(started.folder / "keys" / "node-3.json")
    assert node not in started.view().members


def test_node__removed_by_the_owner__stays_away(started: Federation, tmp_path: Path) -> None:
    assert started.owner is not None
    node = Sender(started.rpc(), key(started, "node-2"), started.owner.run)
    local.fund(started.rpc(), node.address)
    membership_calls.join(node, ZERO_ADDRESS, invite_from_text(started.invite("node-2") or ""))
    started.owner.remove(node.address)
    code, sentence = daemon(started, "node-2", {}, tmp_path)
    assert code == 17 and "left the run or was removed" in sentence


def key(federation: Federation, name: str) -> bytes:
    folder = federation.folder / "keys"
    return keystore.load(folder / f"{name}.json", keystore.read_password(folder / f"{name}.password"))


def test_node__without_an_invite__is_told_its_address_and_what_to_ask_for(started: Federation, tmp_path: Path) -> None:
    node = keystore.stored_address(started.folder / "keys" / "node-3.json").hex()
    code, sentence = daemon(started, "node-3", {"client.invite": None}, tmp_path)
    assert code == 17 and f"node 0x{node} has no invite" in sentence
    assert re.search(f"flb chain invite 0x[0-9a-f]{{40}} 0x{node}", sentence)


def test_node__with_the_invite_of_another__is_told_so(started: Federation, tmp_path: Path) -> None:
    code, sentence = daemon(started, "node-3", {"client.invite": started.invite("node-1")}, tmp_path)
    assert code == 17 and "the invite in client.invite is not for node" in sentence
    code, sentence = daemon(started, "node-3", {"client.invite": "abc"}, tmp_path)
    assert code == 10 and "client.invite: the invite is not whole" in sentence


def test_node__without_coins_that_may_not_relay__is_told_how_to_fund_it(started: Federation, tmp_path: Path) -> None:
    code, sentence = daemon(started, "node-3", {"client.relay": "never"}, tmp_path)
    assert code == 23 and "flb account fund" in sentence


def test_daemons__chain_restarted_and_empty__say_so_and_end(make: Make) -> None:
    with make("lost") as federation:
        federation.start_chain()
        federation.deploy()
        federation.spawn("aggregator")
        federation.await_view(lambda view: bool(view.uri), 30)
        federation.spawn("node-1")
        federation.await_view(lambda view: len(view.datasets) == 1, 60)
        assert federation.chain is not None
        port = int(federation.chain.url.rsplit(":", 1)[1])
        federation.chain.stop()
        with (federation.folder / "second.log").open("wb") as log:
            federation.chain = local.start(local.install(cache(), print), log, port)
        for name in ("aggregator", "node-1"):
            child = federation.children[name]
            assert child.process.wait(30) == 16, child.last_line()
            assert "a local chain that was restarted is empty" in child.last_line()
            assert "Traceback" not in child.log.read_text()


def test_node__sigterm_while_it_waits__exits_zero_in_five_seconds(started: Federation) -> None:
    child = started.spawn("node-3")  # a member from the next opening on: it waits
    for _ in range(400):
        if "waiting reason=not drawn" in child.log.read_text():
            break
        assert child.process.poll() is None, child.last_line()
        signal.sigtimedwait([], 0.05)
    child.process.send_signal(signal.SIGTERM)
    assert child.process.wait(5) == 0 and "Traceback" not in child.log.read_text()


@pytest.mark.parametrize("package", ["flb_node", "flb_aggregator"])
def test_daemon__workdir_that_is_a_file__is_one_sentence(started: Federation, tmp_path: Path, package: str) -> None:
    (tmp_path / "file").write_text("x")
    name, key = ("node-1", "client.workdir") if package == "flb_node" else ("aggregator", "server.workdir")
    code, sentence = daemon(started, name, {key: str(tmp_path / "file")}, tmp_path)
    assert code == 24 and "a file could not be used" in sentence


def test_demo__sigterm__leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flb_cli.main", "demo", "--json", "--workdir", str(tmp_path / "demo")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "demo" / "aggregator.log"
    try:
        for _ in range(1200):
            if log.exists() and "serving" in log.read_text():
                break
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            signal.sigtimedwait([], 0.05)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=15)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err
    note = json.loads((tmp_path / "demo" / "aggregator" / "run.json").read_text())
    left = subprocess.run(["pgrep", "-f", str(tmp_path / "demo")], capture_output=True, text=True, check=False)
    assert left.stdout == "" and note["chain_id"] == 31337
    assert os.path.exists(log)
