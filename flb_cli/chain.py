# SPDX-License-Identifier: Apache-2.0
"""`flb chain`: a local chain, and a run's contract as its owner and its readers see it."""

import argparse
import json
from typing import TYPE_CHECKING

from flb.types import Address

if TYPE_CHECKING:
    from flb.chain.registry import Registry
    from flb.chain.rpc import Rpc

RPC = "http://127.0.0.1:8545"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    from flb_cli import chain_events, chain_payouts, chain_status, chain_up, deploy, membership, node_act

    text = "run a local chain, deploy a run, start, finish and read it"
    parser = subparsers.add_parser("chain", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chain_up.register(verbs)
    deploy.register(verbs)
    chain_payouts.register(verbs)
    membership.register(verbs)
    for name, text in (
        ("start", "open round 1 of a run, as its owner"),
        ("finish", "make the open round of a run the last one, as its owner"),
    ):
        verb = add_reader(verbs, name, text)
        node_act.add_key(verb, "the run's owner")
        verb.set_defaults(run=send, function=name)
    chain_status.register(verbs)
    chain_events.register(verbs)


def add_reader(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str
) -> argparse.ArgumentParser:
    """A verb about one run on one chain."""
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument("contract", type=address, metavar="RUN", help="address of the run's contract")
    verb.add_argument("--rpc", default=RPC, metavar="URL", help=f"JSON-RPC endpoint of the chain (default: {RPC})")
    verb.add_argument("--json", action="store_true", help="print the result as JSON")
    return verb


def address(text: str) -> Address:
    """An address on the command line; argparse reports what is none."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if not text.startswith("0x") or len(value) != 20 or len(text) != 42:
        raise argparse.ArgumentTypeError(f"{text} is no address: give 0x and 40 hex digits")
    return Address(value)


def number(text: str) -> int:
    """A round, a block or a count of them on the command line: what a uint32 of the contract holds."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to {2**32 - 1}")
    return int(text)


def send(arguments: argparse.Namespace) -> int:
    """`flb chain start` and `flb chain finish`: one transaction of the owner."""
    from flb_cli.node_act import actor

    with actor(arguments, "owner").sending() as sender:
        mined = sender.invoke(arguments.function)
    result = {"tx": "0x" + mined.tx.hex(), "block": mined.block.number, "gas_used": mined.gas_used}
    if arguments.json:
        print(json.dumps(result))
    else:
        done = "round 1 is open" if arguments.function == "start" else "the open round is the last"
        print(f"{done}: transaction {result['tx']} in block {result['block']}, {result['gas_used']} gas")
    return 0


def reader(arguments: argparse.Namespace) -> "tuple[Rpc, Registry]":
    """The run's registry, read to the newest block."""
    from flb.chain.registry import Registry, find_deploy_block
    from flb.chain.rpc import Rpc
    from flb.types import Domain

    rpc = Rpc(arguments.rpc)
    first = arguments.deploy_block
    if first is None:
        first = find_deploy_block(rpc, arguments.contract)
    confirmations = getattr(arguments, "confirmations", 0)
    registry = Registry(rpc, Domain(rpc.chain_id(), arguments.contract), first, confirmations)
    registry.poll()
    return rpc, registry
