# SPDX-License-Identifier: Apache-2.0
"""`flb chain invite|join|leave|remove|rotate-key|set-payee` and `flb dataset` against a real chain."""

import json
from pathlib import Path
from typing import Any

import pytest

from flb import keystore
from flb.chain.membership_calls import read_slot
from flb.chain.rpc import Rpc
from flb.errors import ContractRefused, NotAllowedHere, Refused
from flb.membership import Status
from flb.types import Address
from flb_cli.deploy import refuse_foreseen_draw
from flb_cli.main import main
from tests.chains import Deployed, deploy, serving

pytestmark = pytest.mark.chain


class Cli:
    """The command, with a keystore for each account of a run."""

    def __init__(self, deployed: Deployed, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.deployed, self.folder, self.capsys = deployed, folder, capsys
        accounts = {"owner": deployed.owner, "node": deployed.nodes[0], "payee": deployed.nodes[1]}
        (folder / "password").write_text("x\n")
        for name, sender in accounts.items():
            keystore.create(folder / f"{name}.json", b"x", sender.key, rounds=1_000, role=name)
        self.run = "0x" + deployed.run.hex()

    def __call__(self, *words: object, by: str | None = None, expect: int = 0) -> Any:
        """The answer as JSON."""
        group, verb, *rest = words
        all_words = [group, verb, self.run, *rest, "--rpc", self.deployed.rpc.url, "--json"]
        if by:
            all_words += ["--keystore", self.folder / f"{by}.json", "--password-file", self.folder / "password"]
        code = main([str(word) for word in all_words])
        out, err = self.capsys.readouterr()
        assert code == expect, err
        return json.loads(out)


def shown(address: Address) -> str:
    return "0x" + address.hex()


@pytest.fixture
def cli(deployed: Deployed, factory: Address, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(deploy(deployed.rpc, factory, admission=True), tmp_path, capsys)


def test_membership__from_invite_to_removal__by_commands(cli: Cli) -> None:
    d = cli.deployed
    node, payee = d.nodes[0].address, d.nodes[1].address
    assert "FLBNotInvited" in cli("chain", "join", by="node", expect=ContractRefused.exit_code)["error"]
    invite = cli("chain", "invite", shown(node), "--days", "1", by="owner")
    assert invite["node"] == shown(node)
    assert cli("chain", "join", "--invite", invite["invite"], "--payee", shown(payee), by="node")["gas_used"] > 0

    data = cli.folder / "data.jsonl"
    data.write_text('{"prompt": "a?", "completion": "b"}\n{"prompt": "c?", "completion": "d"}\n')
    made = cli("dataset", "register", data, "--workdir", cli.folder / "work", by="node")
    assert made["records"] == 2 and made["node"] == shown(node)
    again = cli("dataset", "register", data, "--workdir", cli.folder / "work", by="node")
    assert again["root"] == made["root"], "the node's secret is kept"
    listed = cli("dataset", "list", "--node", shown(node))
    assert [(item["root"], item["version"], item["records"]) for item in listed] == [
        (made["root"], 1, 2), (made["root"], 2, 2),
    ]  # fmt: skip
    cli("dataset", "revoke", made["root"], by="node")

    cli("chain", "rotate-key", cli.folder / "owner.json", "--node", shown(node), by="payee")
    assert read_slot(d.rpc, d.run, node).key == d.owner.address
    cli("chain", "set-payee", shown(node), "--node", shown(node), by="payee")
    assert read_slot(d.rpc, d.run, node).payee == node
    assert "FLBUnauthorized" in cli("chain", "leave", by="node", expect=ContractRefused.exit_code)["error"]
    cli("chain", "leave", "--node", shown(node), by="owner")
    assert read_slot(d.rpc, d.run, node).status is Status.LEFT


def test_remove__voids_the_invite(cli: Cli) -> None:
    d = cli.deployed
    node = d.nodes[0].address
    invite = cli("chain", "invite", shown(node), by="owner")["invite"]
    cli("chain", "join", "--invite", invite, by="node")
    cli("chain", "remove", shown(node), by="owner")
    refused = cli("chain", "join", "--invite", invite, by="node", expect=ContractRefused.exit_code)
    assert "FLBNotInvited" in refused["error"]
    cli("chain", "join", "--invite", cli("chain", "invite", shown(node), by="owner")["invite"], by="node")


def test_invite__by_another_account_or_on_an_open_run__is_refused(
    cli: Cli, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    node = shown(cli.deployed.nodes[0].address)
    assert "is not the run's admitter" in cli("chain", "invite", node, by="node", expect=Refused.exit_code)["error"]
    cli.run = shown(deployed.run)
    assert "is open" in cli("chain", "invite", node, by="owner", expect=NotAllowedHere.exit_code)["error"]


def test_join__invite_that_was_cut__is_refused_before_anything_is_sent(cli: Cli) -> None:
    assert "not whole" in cli("chain", "join", "--invite", "abc", by="node", expect=55)["error"]


def test_refuse_foreseen_draw__chain_whose_prevrandao_changes__passes(rpc: Rpc) -> None:
    refuse_foreseen_draw(rpc, 0.5)


def answering(mix: str, newest: int) -> Any:
    def answer(request: Any) -> bytes:
        result: Any = hex(newest)
        if request["method"] == "eth_getBlockByNumber":
            result = {"mixHash": mix}
        if request["method"] == "evm_mine":
            return json.dumps({"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "no"}}).encode()
        return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()

    return answer


def test_refuse_foreseen_draw__constant_prevrandao__is_refused_for_a_fraction_alone() -> None:
    with serving(answering("0x" + "00" * 31 + "01", 20)) as url:
        with pytest.raises(Refused, match=r"run\.fraction is 0\.5, and prevrandao is the same in all blocks"):
            refuse_foreseen_draw(Rpc(url), 0.5)
        refuse_foreseen_draw(Rpc(url), 1.0)


def test_refuse_foreseen_draw__chain_too_young_to_tell__is_refused() -> None:
    with serving(answering("0x01", 1)) as url, pytest.raises(Refused, match="too young"):
        refuse_foreseen_draw(Rpc(url), 0.5)
