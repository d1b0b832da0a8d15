# SPDX-License-Identifier: Apache-2.0
"""`flb chain invite|join|leave|remove|rotate-key|set-payee`: who is a member of a run, by the hand of each who may say so."""

import argparse
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from flb.types import Address, Seconds
from flb_cli.chain import add_reader, address
from flb_cli.node_act import act, actor, add_key, add_node, report

DAY_SECONDS = 86_400


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs to `flb chain`."""
    verb = add_reader(
        verbs, "invite", "sign an invite for one node, as the run's admitter; prints a line to send to it"
    )
    verb.add_argument("node", type=address, metavar="NODE", help="address of the node that may join")
    add_key(verb, "the run's admitter, by default its owner")
    verb.add_argument("--days", type=days, default=7, metavar="N", help="how long it may be used (default: 7)")
    verb.set_defaults(run=invite)

    verb = add_reader(verbs, "join", "join a run as a node, with coins of the node's own; flb-node does it by itself")
    add_key(verb, "the node")
    verb.add_argument("--payee", type=address, metavar="ADDRESS", help="who is paid for it (default: the node itself)")
    verb.add_argument(
        "--invite", metavar="TEXT", help="the line of flb chain invite, where the run admits by invitation"
    )
    verb.add_argument("--relay", action="store_true", help="let the run's aggregator pay for the transaction")
    verb.set_defaults(run=join)

    verb = add_reader(verbs, "leave", "leave a run; counts from the next round on")
    add_key(verb, "the node's present key")
    add_node(verb)
    verb.set_defaults(run=leave)

    verb = add_reader(verbs, "remove", "remove a node from a run, as its owner or admitter; voids the node's invites")
    verb.add_argument("node", type=address, metavar="NODE", help="address of the node")
    add_key(verb, "the run's owner or admitter")
    verb.set_defaults(run=remove)

    verb = add_reader(verbs, "rotate-key", "let another key sign for a node from the next round on")
    verb.add_argument("key", type=key_address, metavar="KEY", help="the new key: its address, or its keystore")
    add_key(verb, "the node's present key, or its payee")
    add_node(verb)
    verb.set_defaults(run=rotate_key)

    verb = add_reader(verbs, "set-payee", "let another account be paid for a node, as the present payee")
    verb.add_argument("payee", type=address, metavar="PAYEE", help="address of the new payee")
    add_key(verb, "the present payee")
    add_node(verb, relayed=False)
    verb.set_defaults(run=set_payee)


def days(text: str) -> float:
    """A length of time above zero."""
    value = float(text)
    if not 0 < value < 36_500:
        raise argparse.ArgumentTypeError("give a number of days above 0")
    return value


def key_address(text: str) -> Address:
    """An address, or that of a keystore."""
    from flb import keystore
    from flb.errors import KeystoreError

    if text.startswith("0x"):
        return address(text)
    try:
        return keystore.stored_address(Path(text))
    except KeystoreError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def invite(arguments: argparse.Namespace) -> int:
    """`flb chain invite`."""
    from flb.chain import membership_calls
    from flb.errors import NotAllowedHere, Refused
    from flb.membership import MOST_REMOVALS, invite_to_text, sign_invite
    from flb.types import ZERO_ADDRESS, Domain

    by = actor(arguments, "owner")
    rpc = by.rpc
    rules = membership_calls.read_rules(rpc, by.run)
    if rules.admitter == ZERO_ADDRESS:
        raise NotAllowedHere("membership of this run is open", "let the node join without an invite")
    if rules.admitter != by.address:
        raise Refused(
            f"this key (0x{by.address.hex()}) is not the run's admitter (0x{rules.admitter.hex()})",
            "use the admitter's keystore",
        )
    slot = by.slot()
    if slot.removals == MOST_REMOVALS:
        raise Refused(f"0x{by.node.hex()} was removed too often to be invited", "let it come with another key")
    deadline = Seconds(int(max(time.time(), rules.now) + arguments.days * DAY_SECONDS))
    text = invite_to_text(sign_invite(by.key, Domain(rpc.chain_id(), by.run), by.node, slot.removals, deadline))
    if arguments.json:
        print(json.dumps({"node": "0x" + by.node.hex(), "invite": text, "deadline": deadline}))
    else:
        print(text)
        ends = datetime.fromtimestamp(deadline, UTC)
        print(f"for client.invite of that node; good until {ends:%Y-%m-%d %H:%M} UTC", file=sys.stderr)
    return 0


def join(arguments: argparse.Namespace) -> int:
    """`flb chain join`."""
    from flb.chain import membership_calls
    from flb.membership import NO_INVITE, Kind, Message, invite_from_text, word_of
    from flb.types import ZERO_ADDRESS

    held = invite_from_text(arguments.invite) if arguments.invite else NO_INVITE
    by = actor(arguments, "node")
    payee = arguments.payee or ZERO_ADDRESS
    message = Message(Kind.JOIN, by.node, 0, Seconds(0), word_of(payee))
    said = f"0x{by.node.hex()} is a member"
    return act(by, message, lambda sender: membership_calls.join(sender, payee, held), said, held)


def leave(arguments: argparse.Namespace) -> int:
    """`flb chain leave`."""
    from flb.chain import membership_calls
    from flb.membership import Kind, Message

    by = actor(arguments, "node")
    message = Message(Kind.LEAVE, by.node, 0, Seconds(0))
    return act(by, message, lambda sender: membership_calls.leave(sender, by.node), f"0x{by.node.hex()} has left")


def remove(arguments: argparse.Namespace) -> int:
    """`flb chain remove`."""
    by = actor(arguments, "owner")
    with by.sending() as sender:
        mined = sender.remove(by.node)
    result = {"node": "0x" + by.node.hex(), "tx": "0x" + mined.tx.hex(), "block": mined.block.number,
              "gas_used": mined.gas_used}  # fmt: skip
    report(arguments, result, f"0x{by.node.hex()} is removed, and its invites are void")
    return 0


def rotate_key(arguments: argparse.Namespace) -> int:
    """`flb chain rotate-key`."""
    from flb.chain import membership_calls
    from flb.membership import Kind, Message, word_of

    by = actor(arguments, "node")
    message = Message(Kind.ROTATE_KEY, by.node, 0, Seconds(0), word_of(arguments.key))
    said = f"0x{arguments.key.hex()} signs for 0x{by.node.hex()} from the next round on; set client.node to it"
    key: Address = arguments.key
    return act(
        by, message, lambda sender: membership_calls.rotate_key(sender, by.node, key), said, key="0x" + key.hex()
    )


def set_payee(arguments: argparse.Namespace) -> int:
    """`flb chain set-payee`."""
    from flb.chain import membership_calls

    by = actor(arguments, "payee")
    with by.sending() as sender:
        mined = membership_calls.set_payee(sender, by.node, arguments.payee)
    result = {"node": "0x" + by.node.hex(), "payee": "0x" + arguments.payee.hex(), "tx": "0x" + mined.tx.hex(),
              "block": mined.block.number, "gas_used": mined.gas_used}  # fmt: skip
    report(arguments, result, f"0x{arguments.payee.hex()} is paid for 0x{by.node.hex()}")
    return 0
