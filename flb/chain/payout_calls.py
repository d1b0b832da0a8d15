# SPDX-License-Identifier: Apache-2.0
"""Payouts on the chain: what is active, what was claimed, and the transactions that activate, cancel and claim.

`roll` stores no payout: a root is in its round's record hash until somebody shows the record again. So `sealed` gives
the fields of that record, from the round's event and the record hash before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flb import events as chain
from flb.chain.deploy import deploy_code
from flb.chain.registry import call_view
from flb.chain.rpc import Rpc
from flb.chain.sender import Mined, Sender, calldata
from flb.types import Address, Digest, Round, Seconds


@dataclass(frozen=True, slots=True)
class PayoutTerms:
    """What a run pays in and how long a payout waits: `token` zero for none, times in seconds."""

    token: Address
    round_seconds: Seconds
    delay_seconds: Seconds

    def due(self, rolled: chain.ChainRoundRolled) -> Seconds:
        """When the payout of a sealed round may be activated: its seal, which set the next deadline, plus the delay."""
        return Seconds(rolled.deadline - self.round_seconds + self.delay_seconds)


def read_terms(rpc: Rpc, run: Address) -> PayoutTerms:
    """The terms of a run. Raises ChainUnavailable or LostChain, as all reads below do."""
    (token,) = call_view(rpc, run, "token")
    round_seconds, _, _, delay_seconds = call_view(rpc, run, "windows")
    return PayoutTerms(token, round_seconds, delay_seconds)


def read_claimed(rpc: Rpc, run: Address, node: Address) -> int:
    """What was paid for a node so far, in base units of the token."""
    return int(call_view(rpc, run, "claimed", "0x" + node.hex())[0])


def read_payee(rpc: Rpc, run: Address, node: Address) -> Address:
    """Who is paid for a node now, also after it left; zero for a node that never joined."""
    payee: Address = call_view(rpc, run, "member", "0x" + node.hex())[0]
    return payee


def read_time(rpc: Rpc) -> Seconds:
    """Time of the newest block."""
    return rpc.newest().time


def read_balance(rpc: Rpc, token: Address, holder: Address) -> int:
    """What an account holds of a token. Raises LostChain where there is no contract."""
    return int(call_view(rpc, token, "balanceOf", "0x" + holder.hex(), contract="FLBToken")[0])


def sealed(rolled: chain.ChainRoundRolled, previous: Digest) -> tuple[Any, ...]:
    """IFLBRewards.Sealed: the record of a round; `previous` is the record hash before it (`OpenRound.previous`)."""
    return (
        rolled.round, previous, rolled.record_digest, rolled.adapter_digest, rolled.updates_root, rolled.scores_root,
        rolled.payout_root, rolled.seed, rolled.accepted, rolled.weight_sum, rolled.deadline,
    )  # fmt: skip


def activate(sender: Sender, rolled: chain.ChainRoundRolled, previous: Digest) -> Mined:
    """Make the payout of a round claimable; anybody may. Raises as `Sender.send` does, as all below do."""
    return sender.invoke("activatePayout", sealed(rolled, previous))


def cancel(sender: Sender, number: Round) -> Mined:
    """Keep the payout of a round from ever being activated, as the run's owner."""
    return sender.invoke("cancelPayout", number)


def claim(sender: Sender, node: Address, cumulative: int, proof: Sequence[Digest]) -> Mined:
    """Pay a node's payee what it has not had yet; anybody may."""
    return sender.invoke("claim", node, cumulative, list(proof))


def deploy_test_token(sender: Sender) -> Address:
    """A token without value that anybody can mint, for local chains."""
    return deploy_code(sender, "FLBToken")


def mint_test_token(sender: Sender, token: Address, to: Address, amount: int) -> Mined:
    """Make test tokens for an account; `amount` in base units."""
    return sender.send(token, calldata("FLBToken", "mint", to, amount))
