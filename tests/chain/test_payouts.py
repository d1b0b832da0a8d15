# SPDX-License-Identifier: Apache-2.0
"""Payouts on a real chain, through the commands: due, claimed once, for the present payee, by anybody; or cancelled."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from flb import keystore, payouts, records
from flb.chain import membership_calls, payout_calls
from flb.chain.registry import call_view
from flb.chain.sender import Sender
from flb.errors import ContractRefused
from flb.membership import sign_invite
from flb.roster import draw
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Round, Seconds
from flb_cli.main import main
from tests.chains import ROUND_SECONDS, Deployed, a_roll, account, deploy, later
from tests.sim import small_spec

pytestmark = pytest.mark.chain

DELAY, LEAST, PER_ROUND, FUNDS = 300, 10, 1000, 10_000
SPEC = small_spec()


@dataclass
class Paying:
    """A run that pays, its folder as an aggregator leaves it, and the standings so far."""

    deployed: Deployed
    token: Address
    folder: Path
    standings: tuple[payouts.Standing, ...] = ()

    @property
    def nodes(self) -> tuple[Address, ...]:
        return tuple(sender.address for sender in self.deployed.nodes)

    def seal(self, *scores: int, **forged: Digest) -> Round:
        """A sealed round in which the nodes score so much; `forged` roots go to the chain in place of the record's."""
        d = self.deployed
        later(d.rpc, LEAST)
        opened = d.registry().poll().opening
        assert opened is not None
        self.standings = payouts.after(self.standings, dict(zip(self.nodes, scores, strict=True)), PER_ROUND)
        adapter = Digest(os.urandom(32))
        record = records.make(
            d.domain, ZERO_DIGEST, draw(opened, SPEC.rounds), ZERO_DIGEST, records.Closing((), (), ()), adapter,
            standings=self.standings, round_payout=PER_ROUND,
        )  # fmt: skip
        blob = records.encode(record)
        BlobStore(self.folder / "blobs").put(blob)
        d.aggregator.roll(replace(records.roll_of(record, blob), accepted=2, weight_sum=2, **forged))
        return opened.round

    def held(self, holder: Address) -> int:
        return payout_calls.read_balance(self.deployed.rpc, self.token, holder)

    def wait(self) -> None:
        later(self.deployed.rpc, DELAY)


@pytest.fixture
def paying(deployed: Deployed, factory: Address, tmp_path: Path) -> Paying:
    """Two members by invitation, round 1 open, the contract funded; the second node is paid at another address."""
    rpc, token = deployed.rpc, payout_calls.deploy_test_token(deployed.owner)
    d = deploy(rpc, factory, admission=True, token=token, payout_delay_seconds=DELAY, min_round_seconds=LEAST)
    payout_calls.mint_test_token(d.owner, token, d.run, FUNDS)
    for node, payee in zip(d.nodes, (d.nodes[0].address, Address(b"\x77" * 20)), strict=True):
        end = Seconds(membership_calls.read_rules(rpc, d.run).now + 3600)
        invite = sign_invite(d.owner.key, d.domain, node.address, 0, end)
        membership_calls.join(node, payee, invite)
    d.owner.start()
    folder = tmp_path / "aggregator"
    folder.mkdir()
    note = {"run": "0x" + d.run.hex(), "chain_id": d.domain.chain_id, "deploy_block": d.created.block.number,
            "rpc": rpc.url}  # fmt: skip
    (folder / "run.json").write_text(json.dumps(note))
    return Paying(d, token, folder)


@pytest.fixture
def stranger(paying: Paying, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments by which somebody who is neither node nor payee pays."""
    return as_payer(account(paying.deployed.rpc), tmp_path, monkeypatch)


def as_payer(sender: Sender, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    password = folder / "password"
    password.write_text("a password of a test")
    password.chmod(0o600)
    monkeypatch.setenv("FLB_PASSWORD_FILE", str(password))
    path = folder / f"{sender.address.hex()}.json"
    keystore.create(path, b"a password of a test", sender.key, rounds=1000)
    return ["--keystore", str(path)]


def called(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of a command."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def claim(paying: Paying, node: Address, *more: str) -> list[str]:
    return ["claim", str(paying.folder), "--node", "0x" + node.hex(), *more]


def test_claim__three_rounds_at_once_by_a_stranger__pays_the_payee_and_only_once(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for scores in ((1, 1), (3, 1), (0, 1)):
        last = paying.seal(*scores)
    first, second = paying.nodes
    code, out = called(capsys, *claim(paying, second, *stranger))
    assert (code, out["code"]) == (60, "unavailable")
    assert "500 for node" in out["error"] and "round 1: claim them from" in out["error"]
    paying.wait()
    code, out = called(capsys, *claim(paying, second))
    assert (code, out["tx"], out["amount"]) == (0, None, "1750") and paying.held(Address(b"\x77" * 20)) == 0
    code, out = called(capsys, *claim(paying, second, *stranger))
    assert (code, out["amount"], out["payee"]) == (0, "1750", "0x" + "77" * 20)
    assert out["activated"] and out["round"] == last and paying.held(Address(b"\x77" * 20)) == 1750
    code, out = called(capsys, *claim(paying, second, *stranger))
    assert code == 20 and "nothing to claim" in out["error"] and "has had 1750" in out["error"]
    code, out = called(capsys, *claim(paying, first, *stranger))
    assert (code, out["amount"], out["activated"]) == (0, "1250", None) and paying.held(first) == 1250
    code, out = called(capsys, *claim(paying, Address(b"\x01" * 20), *stranger))
    assert code == 20 and "has had 0" in out["error"]
    assert paying.held(paying.deployed.run) == FUNDS - 3000


def test_claim__change_of_payee__pays_the_rest_to_the_new_one(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = paying.nodes
    paying.seal(1, 1)
    paying.wait()
    assert called(capsys, *claim(paying, first, *stranger))[0] == 0
    new = Address(b"\x55" * 20)
    membership_calls.set_payee(paying.deployed.nodes[0], first, new)
    assert called(capsys, *claim(paying, first, *stranger))[0] == 20
    membership_calls.leave(paying.deployed.nodes[0], first)
    paying.seal(1, 3)
    paying.wait()
    code, out = called(capsys, *claim(paying, first, *stranger))
    assert (code, out["amount"], out["payee"]) == (0, "250", "0x" + new.hex())
    assert (paying.held(first), paying.held(new)) == (500, 250)


def test_cancel_payout__by_the_owner__leaves_it_to_the_next_round(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    run, rpc = "0x" + paying.deployed.run.hex(), ["--rpc", paying.deployed.rpc.url]
    number = paying.seal(1, 1)
    owner = as_payer(paying.deployed.owner, tmp_path, monkeypatch)
    code, out = called(capsys, "chain", "cancel-payout", run, str(number), *rpc, *stranger)
    assert code == 23 and "FLBUnauthorized" in out["error"]
    code, out = called(capsys, "chain", "cancel-payout", run, str(number), *rpc, *owner)
    assert (code, out["round"]) == (0, number)
    paying.wait()
    code, out = called(capsys, "chain", "activate-payout", run, *rpc, *stranger)
    assert code == 60 and "no payout is due" in out["error"]
    assert called(capsys, *claim(paying, paying.nodes[0], *stranger))[0] == 20
    following = paying.seal(1, 1)
    code, out = called(capsys, "chain", "activate-payout", run, *rpc, *stranger)
    assert code == 60 and f"round {following} is due at" in out["error"]
    paying.wait()
    assert called(capsys, "chain", "activate-payout", run, *rpc, *stranger)[1]["round"] == following
    code, out = called(capsys, *claim(paying, paying.nodes[0], *stranger))
    assert (code, out["amount"], out["activated"]) == (0, "1000", None)


def test_claim__contract_without_funds__says_what_it_holds_and_owes(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(11):
        paying.seal(1, 0)
    paying.wait()
    code, out = called(capsys, *claim(paying, paying.nodes[0], *stranger))
    assert code == 20 and "the run holds 10000 of the token" in out["error"] and "owes 11000" in out["error"]


def test_claim__run_without_token__pays_nothing(
    deployed: Deployed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = {"run": "0x" + deployed.run.hex(), "chain_id": deployed.domain.chain_id, "rpc": deployed.rpc.url,
            "deploy_block": deployed.created.block.number}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(note))
    code, out = called(capsys, "claim", str(tmp_path), "--node", "0x" + "01" * 20)
    assert code == 20 and "this run pays nothing" in out["error"]


def test_scores__newest_and_named_round__show_proved_totals(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = called(capsys, "scores", str(paying.folder))
    assert code == 54 and "no round is sealed yet" in out["error"]
    paying.seal(3, 1)
    paying.seal(2, 2)
    code, out = called(capsys, "scores", str(paying.folder))
    totals = {bytes.fromhex(line["node"][2:]): (line["score"], line["total"], line["payout"]) for line in out["nodes"]}
    assert totals == {paying.nodes[0]: ("2", "5", "1250"), paying.nodes[1]: ("2", "3", "750")}
    assert called(capsys, "scores", str(paying.folder), "--round", "1")[1]["nodes"][0]["proof"]
    assert called(capsys, "scores", str(paying.folder), "--round", "9")[0] == 54
    blobs = BlobStore(paying.folder / "blobs")
    rolled = paying.deployed.registry().poll().rolls[-1]
    blobs.path(rolled.record_digest).write_bytes(b"{}")
    assert called(capsys, "scores", str(paying.folder))[1]["code"] == "digest-mismatch"
    blobs.path(rolled.record_digest).unlink()
    assert called(capsys, "scores", str(paying.folder))[1]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("forged", "words"),
    [("payout_root", "the payout root of round 1 is another"), ("scores_root", "the scores root of round 1 on chain")],
)
def test_claim__chain_and_record_disagree__is_refused_before_anything_is_sent(
    paying: Paying, stranger: list[str], capsys: pytest.CaptureFixture[str], forged: str, words: str
) -> None:
    paying.seal(1, 1, **{forged: Digest(b"\x01" * 32)})
    paying.wait()
    code, out = called(capsys, *claim(paying, paying.nodes[0], *stranger))
    assert (code, out["code"]) == (47, "digest-mismatch") and words in out["error"]
    assert paying.held(paying.nodes[0]) == 0


def test_activate__record_with_another_root__is_refused_by_the_contract(paying: Paying) -> None:
    paying.seal(1, 1)
    paying.wait()
    d = paying.deployed
    view = d.registry().poll()
    rolled = view.rolls[0]
    previous = view.openings[rolled.round].previous
    with pytest.raises(ContractRefused, match="FLBRecordMismatch"):
        payout_calls.activate(d.owner, replace(rolled, payout_root=Digest(b"\x01" * 32)), previous)
    payout_calls.activate(d.owner, rolled, previous)
    assert call_view(d.rpc, d.run, "payout") == (rolled.round, rolled.payout_root)
    assert payout_calls.read_terms(d.rpc, d.run) == payout_calls.PayoutTerms(
        paying.token, Seconds(ROUND_SECONDS), Seconds(DELAY)
    )


def test_roll__round_younger_than_the_least__is_refused_and_goes_through_later(paying: Paying) -> None:
    d = paying.deployed
    paying.seal(1, 1)
    with pytest.raises(ContractRefused, match="FLBTooEarly"):
        d.aggregator.roll(a_roll(2))
    later(d.rpc, LEAST)
    d.aggregator.roll(a_roll(2))
    assert len(d.registry().poll().rolls) == 2
