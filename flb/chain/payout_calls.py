# SPDX-License-Identifier: Apache-2.0
"""Payouts on the chain: what is active, what was claimed, and the transactions that activate, cancel and claim.

`roll` stores no payout: a root is in its round's record hash until somebody shows the record again. So `sealed` gives
the fields of that record, from the round's event and the record hash before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import decode

from flb import events as chain
from flb.chain import abi
from flb.chain.registry import call_view
from flb.chain.rpc import MALFORMED, Rpc, lost, malformed
from flb.chain.sender import Mined, Sender, calldata
from flb.errors import ChainUnavailable
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
    return PayoutTerms(_address(token), round_seconds, delay_seconds)


def read_active(rpc: Rpc, run: Address) -> tuple[Round, Digest]:
    """Round and root of the active payout; 0 and zero before the first."""
    number, root = call_view(rpc, run, "payout")
    return number, Digest(root)


def read_claimed(rpc: Rpc, run: Address, node: Address) -> int:
    """What was paid for a node so far, in base units of the token."""
    return int(call_view(rpc, run, "claimed", "0x" + node.hex())[0])


def read_payee(rpc: Rpc, run: Address, node: Address) -> Address:
    """Who is paid for a node now, also after it left; zero for a node that never joined."""
    return _address(call_view(rpc, run, "member", "0x" + node.hex())[0])


def read_time(rpc: Rpc) -> Seconds:
    """Time of the newest block."""
    newest = rpc.call("eth_getBlockByNumber", "latest", False)
    try:
        return Seconds(int(newest["timestamp"], 16))
    except MALFORMED as error:
        raise malformed(rpc.url, "eth_getBlockByNumber") from error


def read_balance(rpc: Rpc, token: Address, holder: Address) -> int:
    """What an account holds of a token. Raises LostChain where there is no contract."""
    data = calldata("FLBToken", "balanceOf", "0x" + holder.hex())
    answer = rpc.data("eth_call", {"to": "0x" + token.hex(), "data": "0x" + data.hex()}, "latest")
    if not answer:
        raise lost(rpc.url, token)
    try:
        return int(decode(["uint256"], answer)[0])
    except MALFORMED as error:
        raise malformed(rpc.url, "eth_call") from error


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
    mined = sender.send(None, abi.load("FLBToken").bytecode)
    if mined.contract is None:
        raise ChainUnavailable("the chain's receipt names no contract", "use another RPC endpoint")
    return mined.contract


def mint_test_token(sender: Sender, token: Address, to: Address, amount: int) -> Mined:
    """Make test tokens for an account; `amount` in base units."""
    return sender.send(token, calldata("FLBToken", "mint", to, amount))


def _address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))
