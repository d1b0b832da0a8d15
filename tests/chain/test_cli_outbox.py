# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed around the sending of a transaction: the same command again pays once."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from flb import keystore
from flb.chain.outbox import Outbox
from flb.chain.payout_calls import read_balance
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.errors import NotAllowedHere
from flb.types import Address
from flb_cli import sending
from flb_cli.main import main
from tests.chain.test_outbox import by_hand
from tests.chain.test_payouts import FUNDS, Paying, paying
from tests.chain.test_sender import await_pending, count
from tests.chains import Deployed, account, mine

__all__ = ["by_hand", "paying"]
pytestmark = pytest.mark.chain

SCRIPT = """
import os, signal, sys
from flb.chain.sender import Sender
from flb_cli.main import main
left, where, push = int(sys.argv[1]), sys.argv[2], Sender.push
def pushed(self, raw):
    global left
    left -= 1
    if where == "after" or left >= 0:
        push(self, raw)
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
Sender.push = pushed
main(sys.argv[3:])
"""
"""A command that dies around the sending of its transaction number `left`, from 0."""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's state folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "flb"


def key_of(sender: Sender, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The keystore of an account, whose password the environment names."""
    password = folder / "password"
    password.write_text("a password of a test")
    password.chmod(0o600)
    monkeypatch.setenv("FLB_PASSWORD_FILE", str(password))
    path = folder / f"{sender.address.hex()}.json"
    keystore.create(path, b"a password of a test", sender.key, rounds=1000)
    return path


def killed(words: list[str], left: int, where: str) -> None:
    """Run a command that dies there."""
    command = [sys.executable, "-c", SCRIPT, str(left), where, *words]
    done = subprocess.run(command, check=False, timeout=60, env={**os.environ, "PYTHONPATH": os.curdir})
    assert done.returncode == -signal.SIGKILL


def kept(rpc: Rpc, sender: Sender) -> int:
    """How many transactions are in the account's outbox."""
    folder = sending.outbox_folder(rpc, 31337, sender.address)
    outbox = Outbox(folder / "outbox.sqlite")
    try:
        return len(outbox.pending(31337, sender.address))
    finally:
        outbox.close()


@pytest.mark.parametrize("where", ["before", "after"])
def test_start__killed_around_the_sending__opens_the_round_with_one_transaction(
    deployed: Deployed, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    owner = deployed.owner
    key, before = key_of(owner, tmp_path, monkeypatch), count(deployed.rpc, owner.address, "latest")
    words = ["chain", "start", "0x" + deployed.run.hex(), "--rpc", deployed.rpc.url, "--keystore", str(key), "--json"]
    killed(words, 0, where)
    assert kept(deployed.rpc, owner) == 1
    assert count(deployed.rpc, owner.address, "latest") == before + (where == "after")
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["gas_used"] > 0
    assert "an earlier command left transaction 0x" in err
    assert count(deployed.rpc, owner.address, "latest") == before + 1
    assert kept(deployed.rpc, owner) == 0
    assert main(words) == 23, "the outbox does not hide what the contract says of a third try"


def test_set_payee__effect_that_could_be_had_twice__is_paid_for_once(
    deployed: Deployed, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_hand: Rpc
) -> None:
    """Killed while the transaction waits for a block: the command that comes next waits for the same one."""
    by_hand.call("evm_setAutomine", True)
    node = deployed.nodes[0]
    run, shown = "0x" + deployed.run.hex(), "0x" + node.address.hex()
    more = ["--rpc", deployed.rpc.url, "--keystore", str(key_of(node, tmp_path, monkeypatch)), "--json"]
    assert main(["chain", "join", run, *more]) == 0
    by_hand.call("evm_setAutomine", False)
    start = count(by_hand, node.address, "latest")
    words = ["chain", "set-payee", run, shown, *more]
    killed(words, 0, "after")
    assert count(by_hand, node.address, "pending") == start + 1
    command = [sys.executable, "-m", "flb_cli.main", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as again:
        assert again.stdout is not None
        await_pending(node, start + 1)
        waited = threading.Event()
        while again.poll() is None:
            mine(by_hand, 1)
            waited.wait(0.2)
        assert json.loads(again.stdout.read())["block"] > 0 and again.returncode == 0
    assert count(by_hand, node.address, "latest") == start + 1
    assert kept(by_hand, node) == 0


def test_sending__account_in_use__is_refused_without_waiting(deployed: Deployed, state: Path) -> None:
    with sending.sending(deployed.rpc, deployed.owner.key):
        second = sending.sending(deployed.rpc, deployed.owner.key)
        with pytest.raises(NotAllowedHere, match="another command sends from 0x.*: wait until it has ended"):
            second.__enter__()
        with sending.sending(deployed.rpc, deployed.aggregator.key) as other:
            assert other.address == deployed.aggregator.address
    with sending.sending(deployed.rpc, deployed.owner.key) as again:
        assert again.address == deployed.owner.address


@pytest.mark.parametrize(("left", "where"), [(0, "after"), (1, "before"), (1, "after")])
def test_claim__killed_at_the_activation_or_the_claim__pays_the_payee_once(
    paying: Paying, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, where: str
) -> None:
    payer = account(paying.deployed.rpc)
    key = key_of(payer, tmp_path, monkeypatch)
    paying.seal(1, 1)
    paying.wait()
    words = ["claim", str(paying.folder), "--node", "0x" + paying.nodes[1].hex(), "--keystore", str(key), "--json"]
    killed(words, left, where)
    done = left == 1 and where == "after"
    assert main(words) == (20 if done else 0), "what was paid is not paid again"
    assert paying.held(Address(b"\x77" * 20)) == 500
    assert read_balance(paying.deployed.rpc, paying.token, paying.deployed.run) == FUNDS - 500
    assert count(paying.deployed.rpc, payer.address, "latest") == 2


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("left", [0, 1, 2, 3], ids=["factory", "token", "run", "mint"])
def test_deploy__killed_at_each_transaction__pays_for_each_contract_once(
    rpc: Rpc, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int, where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    base, owner = tmp_path / "base", account(rpc)
    base.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": np.zeros((8, 8), np.float32)}, base / "model.safetensors")
    key = key_of(owner, tmp_path, monkeypatch)
    settings = {
        "model": {"model_path": str(base)},
        "lora": {"target_modules": ["q_proj"]},
        "chain": {"rpc": rpc.url},
        "run": {"round_seconds": 7200, "payout": {"per_round": 10}},
        "server": {"workdir": str(tmp_path / "aggregator"), "keystore": str(key)},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    words = ["chain", "deploy", "--config", str(tmp_path / "config.yaml"), "--keystore", str(key), "--json"]
    words += ["--test-token", "5000"]
    killed(words, left, where)
    assert main(words) == 0, capsys.readouterr().err
    made = json.loads(capsys.readouterr().out)
    assert count(rpc, owner.address, "latest") == 4
    assert read_balance(rpc, Address(bytes.fromhex(made["token"][2:])), Address(bytes.fromhex(made["run"][2:]))) == 5000
    note = json.loads((tmp_path / "aggregator" / "run.json").read_text())
    assert (note["run"], note["deploy_block"], note["spec"]) == (made["run"], made["deploy_block"], made["spec"])
    assert not (tmp_path / "aggregator" / "deploying.json").exists()
    assert main(words) == NotAllowedHere.exit_code
