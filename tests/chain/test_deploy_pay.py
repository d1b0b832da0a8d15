# SPDX-License-Identifier: Apache-2.0
"""Deploying a run that pays: what would not work is refused before anything is sent, and a test token is in place."""

from dataclasses import replace
from pathlib import Path

import pytest

from flb.chain import payout_calls
from flb.chain.rpc import Rpc
from flb.config import Config, PayoutConfig, ScoringConfig
from flb.errors import LostChain, Refused
from flb.types import ZERO_ADDRESS
from flb_cli import deploy, deploy_pay
from tests.chains import account
from tests.sim import small_spec

pytestmark = pytest.mark.chain

SPEC = small_spec(round_seconds=7200)


def config(rpc: Rpc, folder: Path, **run: object) -> Config:
    made = Config()
    return replace(
        made,
        run=replace(made.run, **run),  # type: ignore[arg-type]
        chain=replace(made.chain, rpc=rpc.url),
        server=replace(made.server, workdir=folder),
    )


def test_deploy__test_token__run_holds_it_under_the_planned_windows(rpc: Rpc, tmp_path: Path) -> None:
    owner = account(rpc)
    settings = config(rpc, tmp_path, payout=PayoutConfig(per_round=1000), round_seconds=7200)
    made = deploy.deploy(settings, owner.key, owner.address, lambda *_: SPEC, test_token=5000)
    terms = payout_calls.read_terms(rpc, made.run)
    assert terms.token == made.token != ZERO_ADDRESS
    assert terms.delay_seconds == 86400
    assert payout_calls.read_balance(rpc, made.token, made.run) == 5000


def test_deploy__no_token__pays_nothing(rpc: Rpc, tmp_path: Path) -> None:
    owner = account(rpc)
    made = deploy.deploy(config(rpc, tmp_path, membership="open"), owner.key, owner.address, lambda *_: SPEC)
    terms = payout_calls.read_terms(rpc, made.run)
    assert (made.token, terms.token, terms.delay_seconds) == (ZERO_ADDRESS, ZERO_ADDRESS, 0)


@pytest.mark.parametrize(
    ("run", "test_token", "words"),
    [
        ({"payout": PayoutConfig(per_round=1)}, 0, "there is no token"),
        ({"payout": PayoutConfig(token="0x" + "11" * 20)}, 1, "run.payout.token is set"),
        ({"membership": "open"}, 1, "payouts need admission"),
        ({"min_round_seconds": 60}, 1, "the longest for these rounds is 3780"),
    ],
)
def test_plan__what_would_not_work__is_refused_before_anything_is_sent(
    rpc: Rpc, tmp_path: Path, run: dict[str, object], test_token: int, words: str
) -> None:
    owner = account(rpc)
    with pytest.raises(Refused, match=words):
        deploy.deploy(config(rpc, tmp_path, **run), owner.key, owner.address, lambda *_: SPEC, test_token=test_token)
    assert rpc.quantity("eth_getTransactionCount", "0x" + owner.address.hex(), "latest") == 0


def test_plan__token_that_is_not_there__is_named(rpc: Rpc, tmp_path: Path) -> None:
    with pytest.raises(LostChain, match="there is no token at 0x1111"):
        deploy_pay.plan(config(rpc, tmp_path, payout=PayoutConfig(token="0x" + "11" * 20)), rpc, 0)


def test_plan__test_token_on_another_chain__is_refused(
    rpc: Rpc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rpc, "chain_id", lambda self: 1)
    with pytest.raises(Refused, match="chain 1 is not a local chain: test tokens have no value"):
        deploy_pay.plan(config(rpc, tmp_path), rpc, 1)


def test_plan__historic_rule__prints_its_weaknesses(
    rpc: Rpc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy_pay.plan(config(rpc, tmp_path, scoring=ScoringConfig(rule="uploads_bytes_examples")), rpc, 0)
    said = capsys.readouterr().err
    assert all(word in said for word in ("rewards repetition", "rewards size", "as a node declares them"))
