# SPDX-License-Identifier: Apache-2.0
"""`flb chain activate-payout` and `flb chain cancel-payout`: what anybody, and what the owner, may do with a payout."""

import argparse
import json
from typing import TYPE_CHECKING

from flb.errors import Unavailable
from flb.types import Round

if TYPE_CHECKING:
    from flb.chain.sender import Mined


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    from flb_cli.chain import add_reader, number
    from flb_cli.node_act import add_key

    for name, text, function in (
        ("activate-payout", "make the newest payout that is due claimable; anybody may", activate),
        ("cancel-payout", "keep the payout of a round from being activated, as the run's owner", cancel),
    ):
        verb = add_reader(verbs, name, text)
        if function is cancel:
            verb.add_argument("round", type=number, metavar="ROUND", help="a sealed round whose payout is not active")
        add_key(verb, "who sends it")
        verb.set_defaults(run=function)


def activate(arguments: argparse.Namespace) -> int:
    """Activate the newest due payout. Raises Unavailable where none is."""
    from flb.chain import payout_calls
    from flb.chain.rpc import Rpc
    from flb.roster import fold
    from flb.types import Domain
    from flb_cli.chain_events import utc
    from flb_cli.claim import due_payouts, sender_of
    from flb_cli.verify import read_chain

    rpc = Rpc(arguments.rpc)
    view = fold(read_chain(arguments.rpc, Domain(rpc.chain_id(), arguments.contract), None))
    terms = payout_calls.read_terms(rpc, arguments.contract)
    due, waiting = due_payouts(view, terms, payout_calls.read_time(rpc))
    if not due:
        remedy = "flb scores shows what nodes earned"
        if waiting:
            remedy = f"that of round {waiting[0].round} is due at {utc(terms.due(waiting[0]))}"
        raise Unavailable("no payout is due", remedy)
    with sender_of(rpc, arguments.contract, arguments) as sender:
        mined = payout_calls.activate(sender, due[-1], view.openings[due[-1].round].previous)
    report(arguments, mined, due[-1].round, "is active")
    return 0


def cancel(arguments: argparse.Namespace) -> int:
    """Cancel the payout of a round."""
    from flb.chain import payout_calls
    from flb_cli.node_act import actor

    with actor(arguments, "owner").sending() as sender:
        mined = payout_calls.cancel(sender, Round(arguments.round))
    done = "is cancelled; what it held comes with the next payout, if a round follows"
    report(arguments, mined, Round(arguments.round), done)
    return 0


def report(arguments: argparse.Namespace, mined: "Mined", number: Round, done: str) -> None:
    """Say what was sent."""
    result = {"round": number, "tx": "0x" + mined.tx.hex(), "block": mined.block.number, "gas_used": mined.gas_used}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"the payout of round {number} {done}: transaction {result['tx']}, {mined.gas_used} gas")
