# SPDX-License-Identifier: Apache-2.0
"""What a run pays with, on the way to its deployment: checked before anything is sent, then the token itself."""

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flb.config import Config
from flb.errors import LostChain, Refused
from flb.types import ZERO_ADDRESS, Address

if TYPE_CHECKING:
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Sender


@dataclass(frozen=True, slots=True)
class Pay:
    """The contract's settings; `token` is None where a test token is still to be deployed, times in seconds."""

    token: Address | None
    min_round_seconds: int
    delay_seconds: int


def plan(config: Config, rpc: "Rpc", test_token: int) -> Pay:
    """Settings of a config; `test_token` is how much test token the run gets, 0 for none. Raises Refused for payouts
    that the contract or its chain would not bear, LostChain for a token that is not there."""
    from flb import planner
    from flb.chain import local
    from flb.scoring import WEAKNESSES

    named = config.run.payout.token
    if test_token and named is not None:
        raise Refused("run.payout.token is set, and --test-token would be another", "leave one of them out")
    if test_token and rpc.chain_id() != local.CHAIN_ID:
        raise Refused(f"chain {rpc.chain_id()} is not a local chain", "test tokens have no value: name a token instead")
    least, delay = planner.plan_pay(
        token=bool(test_token) or named is not None,
        per_round=config.run.payout.per_round,
        delay_seconds=config.run.payout.delay_seconds,
        min_round_seconds=config.run.min_round_seconds,
        round_seconds=config.run.round_seconds,
        open_membership=config.run.membership == "open",
    )
    if named is not None and not rpc.data("eth_getCode", named, "latest"):
        raise LostChain(f"there is no token at {named} on the chain at {rpc.url}", "correct run.payout.token")
    for text in WEAKNESSES[config.run.scoring.rule]:
        print(f"flb: {text}", file=sys.stderr)
    if test_token:
        return Pay(None, least, delay)
    return Pay(ZERO_ADDRESS if named is None else Address(bytes.fromhex(named[2:])), least, delay)


def fund(pay: Pay, sender: "Sender", paid_in: Address, run: Address, amount: int) -> None:
    """Give a run its test tokens, in base units; an owner's own token is for the owner to send."""
    from flb.chain.payout_calls import mint_test_token

    if pay.token is None:
        mint_test_token(sender, paid_in, run, amount)
