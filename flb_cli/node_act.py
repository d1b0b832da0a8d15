# SPDX-License-Identifier: Apache-2.0
"""One act of a node from the command line: a transaction with coins of its own, or a signed message for the Relay."""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb.errors import AggregatorUnavailable, Refused
from flb.types import Address, Seconds
from flb_cli.chain import address
from flb_cli.sending import sending

if TYPE_CHECKING:
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Mined, Sender
    from flb.membership import Invite, Message, Slot

MESSAGE_SECONDS = 3600
"""How long a message may be used."""
RELAY_SECONDS = 120.0
"""How long to wait until a message is mined."""
POLL_SECONDS = 0.5


def add_key(verb: argparse.ArgumentParser, whose: str, required: bool = True) -> None:
    """The keystore that acts."""
    verb.add_argument("--keystore", type=Path, required=required, metavar="FILE", help=f"keystore of {whose}")
    verb.add_argument(
        "--password-file",
        type=Path,
        metavar="FILE",
        help="file with its password (default: the file that FLB_PASSWORD_FILE names, else ask)",
    )


def add_node(verb: argparse.ArgumentParser, relayed: bool = True) -> None:
    """Which node, and who pays."""
    verb.add_argument("--node", type=address, metavar="ADDRESS", help="the node (default: the keystore's own address)")
    if relayed:
        verb.add_argument(
            "--relay", action="store_true", help="sign a message and let the run's aggregator pay for its transaction"
        )


@dataclass(frozen=True, slots=True)
class Actor:
    """A key, and the run on which it acts."""

    rpc: "Rpc"
    key: bytes
    run: Address
    node: Address
    arguments: argparse.Namespace

    @property
    def address(self) -> Address:
        """The key's account."""
        from flb.identity import address_of

        return address_of(self.key)

    def slot(self) -> "Slot":
        """What the contract holds of the node."""
        from flb.chain import membership_calls

        return membership_calls.read_slot(self.rpc, self.run, self.node)

    def sending(self) -> AbstractContextManager["Sender"]:
        """The account, to send from. Raises as `flb_cli.sending.sending` does."""
        return sending(self.rpc, self.key, self.run)


def actor(arguments: argparse.Namespace, role: str) -> Actor:
    """Open the keystore and check that the run is there. Raises KeystoreError, LostChain or ChainUnavailable."""
    from flb.chain.registry import Registry
    from flb.chain.rpc import Rpc
    from flb.identity import address_of
    from flb.types import Domain
    from flb_cli.account import open_key

    key = open_key(arguments.keystore, arguments.password_file, role)
    rpc = Rpc(arguments.rpc)
    # an address without code takes every transaction and does nothing
    Registry(rpc, Domain(rpc.chain_id(), arguments.contract), 0).check_run()
    node = getattr(arguments, "node", None) or address_of(key)
    return Actor(rpc, key, arguments.contract, node, arguments)


def act(
    actor: Actor,
    message: "Message",
    send: Callable[["Sender"], "Mined"],
    said: str,
    invite: "Invite | None" = None,
    **more: Any,
) -> int:
    """Send it, or have it relayed (`seq` and deadline are filled in), and print what became of it."""
    result: dict[str, Any] = {}
    if actor.arguments.relay:
        tx = relayed(actor, message, invite)
    else:
        with actor.sending() as sender:
            mined = send(sender)
        tx, result = "0x" + mined.tx.hex(), {"block": mined.block.number, "gas_used": mined.gas_used}
    shown = {"node": "0x" + actor.node.hex(), "tx": tx, **result, "relayed": actor.arguments.relay, **more}
    report(actor.arguments, shown, said)
    return 0


def report(arguments: argparse.Namespace, result: dict[str, Any], said: str) -> None:
    """JSON, or a sentence with the transaction."""
    gas = f", {result['gas_used']} gas" if "gas_used" in result else ", paid by the aggregator"
    print(json.dumps(result) if arguments.json else f"{said}: transaction {result['tx']}{gas}")


def relayed(actor: Actor, message: "Message", invite: "Invite | None") -> str:
    """Sign a message, hand it to the run's aggregator and wait; the transaction in hex. Raises Refused or Busy."""
    from flb.chain import membership_calls
    from flb.chain.registry import Registry, find_deploy_block
    from flb.membership import NO_INVITE, sign_message
    from flb.types import Domain
    from flb_node.channel import endpoint_of
    from flb_node.uplink import Uplink

    rpc = actor.rpc
    domain = Domain(rpc.chain_id(), actor.run)
    view = Registry(rpc, domain, find_deploy_block(rpc, actor.run)).poll()
    endpoint = endpoint_of(view)
    if not endpoint.uri:
        raise AggregatorUnavailable("the registry names no aggregator endpoint", "leave --relay out, and pay yourself")
    rules = membership_calls.read_rules(rpc, actor.run)
    deadline = Seconds(max(int(time.time()), rules.now) + MESSAGE_SECONDS)
    message = replace(message, seq=actor.slot().seq + 1, deadline=deadline)
    signed = sign_message(actor.key, domain, message, invite or NO_INVITE)
    uplink = Uplink(endpoint, domain, lambda: view.aggregator, actor.node, actor.key)
    try:
        until = time.monotonic() + RELAY_SECONDS
        while True:
            answer = uplink.relay(signed)
            if answer.state == "mined":
                return "0x" + answer.tx.hex()
            if answer.state != "accepted":
                raise Refused(f"the message was {answer.state} ({answer.error or answer.reason})", answer.reason)
            if time.monotonic() > until:
                raise AggregatorUnavailable("the message is not mined yet", "look at the run with flb chain status")
            time.sleep(POLL_SECONDS)
    finally:
        uplink.close()
