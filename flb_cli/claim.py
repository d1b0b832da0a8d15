# SPDX-License-Identifier: Apache-2.0
"""`flb claim RUN --node A`: pay a node's payee all that it has earned so far, in one transaction; anybody may send it.

The newest payout that is due counts, and is activated first where nobody did. The proof is checked here before
anything is sent. Without --keystore nothing is sent: the command says what could be claimed.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb import events as chain
from flb.errors import ContractRefused, DigestMismatch, Refused, Unavailable
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Seconds

if TYPE_CHECKING:
    from flb.chain.payout_calls import PayoutTerms
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Mined, Sender
    from flb.roster import RunView
    from flb_cli.verify import Material


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    from flb_cli.chain import address
    from flb_cli.node_act import add_key
    from flb_cli.scores import add_run

    text = "pay a node's payee what the node has earned; anybody may send it"
    parser = subparsers.add_parser("claim", help=text, description=text)
    add_run(parser)
    parser.add_argument("--node", type=address, required=True, metavar="ADDRESS", help="the node that earned it")
    add_key(parser, "who pays the gas (default: send nothing, only say)", required=False)
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Claimable:
    """What a node's payee gets now, in base units of the token, and how it is shown to the contract."""

    rolled: chain.ChainRoundRolled
    previous: Digest
    """Record hash before the round."""
    active: bool
    cumulative: int
    amount: int
    proof: tuple[Digest, ...]


def run(arguments: argparse.Namespace) -> int:
    """Claim and report."""
    from flb.chain.rpc import connect
    from flb_cli.scores import found

    with tempfile.TemporaryDirectory(prefix="flb-claim-") as cache:
        material = found(arguments, Path(cache))
        if material.rpc is None:
            raise Unavailable("no chain answers, and a claim is a transaction", "give --rpc of the run's chain")
        rpc, run = connect(material.rpc), material.domain.run
        unlock = (lambda: sender_of(rpc, run, arguments)) if arguments.keystore is not None else None
        result = claim(material, rpc, arguments.node, unlock)
    print(json.dumps(result) if arguments.json else in_words(result))
    return 0


def claim(
    material: "Material",
    rpc: "Rpc",
    node: Address,
    unlock: "Callable[[], AbstractContextManager[Sender]] | None" = None,
) -> dict[str, Any]:
    """Pay a node's payee, from the account that `unlock` gives; without one only say what there is. Returns the result
    as JSON. Raises Refused or Unavailable where nothing can be claimed now."""
    from flb.chain.payout_calls import read_payee, read_terms
    from flb.roster import fold

    run = material.domain.run
    terms = read_terms(rpc, run)
    if terms.token == ZERO_ADDRESS:
        raise Refused("this run pays nothing", "flb scores shows what its nodes scored")
    found = claimable(material, fold(material.events), terms, rpc, node)
    check_funds(rpc, terms, run, found.amount)
    result = {
        "node": "0x" + node.hex(),
        "payee": "0x" + read_payee(rpc, run, node).hex(),
        "amount": str(found.amount),
        "cumulative": str(found.cumulative),
        "token": "0x" + terms.token.hex(),
        "round": found.rolled.round,
        "activated": None,
        "tx": None,
    }
    if unlock is None:
        return result
    with unlock() as sender:
        return {**result, **send(sender, node, found)}


def sender_of(rpc: "Rpc", run: Address, arguments: argparse.Namespace) -> AbstractContextManager["Sender"]:
    """The account that pays, unlocked."""
    from flb import keystore
    from flb_cli.account import password
    from flb_cli.sending import sending

    return sending(rpc, keystore.load(arguments.keystore, password(arguments.password_file)), run)


def due_payouts(
    view: "RunView", terms: "PayoutTerms", now: Seconds
) -> tuple[list[chain.ChainRoundRolled], list[chain.ChainRoundRolled]]:
    """Sealed rounds newer than the active payout, not cancelled, with a payout: due at `now`, and those that wait."""
    newer = [
        rolled
        for rolled in view.rolls
        if rolled.round > view.payout_round and rolled.round not in view.cancelled and rolled.payout_root != ZERO_DIGEST
    ]
    return [r for r in newer if terms.due(r) <= now], [r for r in newer if terms.due(r) > now]


def claimable(material: "Material", view: "RunView", terms: "PayoutTerms", rpc: "Rpc", node: Address) -> Claimable:
    """The newest due or active payout, with the node's proof checked. Raises Refused where there is nothing to
    claim, Unavailable with the time from which there is."""
    from flb import payouts, standard_tree
    from flb.chain.payout_calls import read_claimed, read_time
    from flb_cli.chain_events import utc
    from flb_cli.scores import fetch_record

    paid = read_claimed(rpc, material.domain.run, node)
    due, waiting = due_payouts(view, terms, read_time(rpc))
    active = next((r for r in view.rolls if r.round == view.payout_round), None)
    rolled = due[-1] if due else active
    if rolled is not None:
        record = fetch_record(material, rolled)
        tree = payouts.payout_tree(record.standings)
        for index, row in enumerate(record.standings):
            if row.node == node and row.payout > paid:
                proof = tree.proof(index)
                if standard_tree.root_of_proof(standard_tree.leaf(node, row.payout), proof) != rolled.payout_root:
                    raise DigestMismatch(f"the payout root of round {rolled.round} is another", "run flb verify")
                previous = view.openings[rolled.round].previous
                return Claimable(rolled, previous, rolled is active, row.payout, row.payout - paid, proof)
    for later in waiting:
        earned = next((row.payout for row in fetch_record(material, later).standings if row.node == node), 0)
        if earned > paid:
            raise Unavailable(
                f"{earned - paid} for node 0x{node.hex()} wait for the payout of round {later.round}",
                f"claim them from {utc(terms.due(later))} on",
            )
    raise Refused(
        f"there is nothing to claim for node 0x{node.hex()}; it has had {paid}", "flb scores shows what it earned"
    )


def check_funds(rpc: "Rpc", terms: "PayoutTerms", run: Address, amount: int) -> None:
    """Raise Refused where the contract does not hold what it owes."""
    from flb.chain.payout_calls import read_balance

    held = read_balance(rpc, terms.token, run)
    if held < amount:
        raise Refused(
            f"the run holds {held} of the token 0x{terms.token.hex()} and owes {amount}",
            f"ask its owner to send tokens to 0x{run.hex()}",
        )


def send(sender: "Sender", node: Address, found: Claimable) -> dict[str, Any]:
    """Activate where it is needed, then claim; the transactions."""
    from flb.chain import payout_calls

    activated = None if found.active else activate(sender, found)
    mined = payout_calls.claim(sender, node, found.cumulative, found.proof)
    return {
        "activated": "0x" + activated.tx.hex() if activated else None,
        "tx": "0x" + mined.tx.hex(),
        "block": mined.block.number,
        "gas_used": mined.gas_used,
    }


def activate(sender: "Sender", found: Claimable) -> "Mined | None":
    """Activate the payout; None where somebody else did it first."""
    from flb.chain import payout_calls

    try:
        return payout_calls.activate(sender, found.rolled, found.previous)
    except ContractRefused as error:
        if error.name == "FLBNotNewer" and error.values[0] == error.values[1]:
            return None
        raise


def in_words(result: dict[str, Any]) -> str:
    """The result for people."""
    what = f"{result['amount']} of the token {result['token']} for node {result['node']}"
    if result["tx"] is None:
        return f"{what} can be claimed for {result['payee']}; give --keystore to send it"
    if result["activated"]:
        what = f"activated the payout of round {result['round']} in {result['activated']}\n{what}"
    return f"{what} went to {result['payee']}: transaction {result['tx']} in block {result['block']}"
