# SPDX-License-Identifier: Apache-2.0
"""`flb chain`: a local chain, and a run's contract as its owner and its readers see it."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb.types import Address

if TYPE_CHECKING:
    from flb.chain.registry import Registry
    from flb.chain.rpc import Rpc
    from flb.roster import RunView

RPC = "http://127.0.0.1:8545"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    from flb_cli import chain_up, deploy, membership

    text = "run a local chain, deploy a run, start, finish and read it"
    parser = subparsers.add_parser("chain", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    chain_up.register(verbs)
    deploy.register(verbs)
    membership.register(verbs)
    for name, text in (
        ("start", "open round 1 of a run, as its owner"),
        ("finish", "make the open round of a run the last one, as its owner"),
    ):
        verb = add_reader(verbs, name, text)
        verb.add_argument("--keystore", type=Path, required=True, metavar="FILE", help="keystore of the run's owner")
        verb.add_argument(
            "--password-file", type=Path, metavar="FILE", help="file with its password (or FLB_PASSWORD_FILE)"
        )
        verb.set_defaults(run=send, function=name)
    for name, text, function in (
        ("status", "say where a run stands: round, deadline, aggregator, members", status),
        ("events", "print every event of a run, one JSON object a line, in the order of the chain", events),
    ):
        verb = add_reader(verbs, name, text)
        verb.add_argument(
            "--deploy-block", type=int, metavar="N", help="first block to read (default: where the contract appeared)"
        )
        verb.set_defaults(run=function)


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


def send(arguments: argparse.Namespace) -> int:
    """`flb chain start` and `flb chain finish`: one transaction of the owner."""
    from flb.chain.registry import Registry
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Sender
    from flb.types import Domain
    from flb_cli.account import open_key

    key = open_key(arguments.keystore, arguments.password_file, "owner")
    rpc = Rpc(arguments.rpc)
    # an address without code takes every transaction and does nothing
    Registry(rpc, Domain(rpc.chain_id(), arguments.contract), 0).check_run()
    mined = Sender(rpc, key, arguments.contract).invoke(arguments.function)
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
    registry = Registry(rpc, Domain(rpc.chain_id(), arguments.contract), first)
    registry.poll()
    return rpc, registry


def events(arguments: argparse.Namespace) -> int:
    """`flb chain events`."""
    from flb.chain.events import to_json

    for event in reader(arguments)[1].events:
        print(json.dumps(to_json(event)))
    return 0


def status(arguments: argparse.Namespace) -> int:
    """`flb chain status`."""
    from flb.chain.registry import call_view

    rpc, registry = reader(arguments)
    views = {
        name: call_view(rpc, arguments.contract, name) for name in ("owner", "spec", "steps", "adapter", "windows")
    }
    result = described(registry, views)
    if arguments.json:
        print(json.dumps(result))
        return 0
    opening = result["open"]
    print(f"run        {result['run']} on chain {result['chain_id']}, {result['state']}")
    print(f"sealed     {result['sealed']} of {result['steps']} steps")
    if opening:
        closes = datetime.fromtimestamp(opening["deadline"], UTC)
        print(
            f"open       round {opening['round']}, step {opening['step']}, intake closes {closes:%Y-%m-%d %H:%M:%S} UTC"
        )
    print(f"adapter    {result['adapter']}")
    print(f"spec       {result['spec']}")
    print(f"owner      {result['owner']}")
    print(f"aggregator {result['aggregator']} at {result['endpoint']['uri'] or 'no endpoint yet'}")
    print(f"members    {len(result['members'])}")
    for member in result["members"]:
        print(f"  {member['node']}  {member['records']} records")
    if registry.view.opening is None and not registry.view.finished:
        print(f"open it with flb chain start {result['run']} --rpc {rpc.url}", file=sys.stderr)
    return 0


def described(registry: "Registry", views: dict[str, Any]) -> dict[str, Any]:
    """The status as JSON: `views` are the contract's own answers, the rest follows from the events."""
    view, domain = registry.view, registry.domain
    opening = view.opening
    sealed = len(view.rolls)
    return {
        "run": "0x" + domain.run.hex(),
        "chain_id": domain.chain_id,
        "block": registry.cursor.number if registry.cursor else None,
        "state": state(view),
        "sealed": sealed,
        "steps": views["steps"][0],
        "open": opening
        and {
            "round": opening.round,
            "step": opening.step,
            "deadline": opening.deadline,
            "seed": "0x" + opening.seed.hex(),
            "roster": len(opening.roster),
        },
        "spec": "0x" + views["spec"][0].hex(),
        "adapter": "0x" + (view.adapter if sealed else views["adapter"][0]).hex(),
        "round_seconds": views["windows"][0],
        "grace_seconds": views["windows"][1],
        "owner": views["owner"][0],
        "aggregator": "0x" + view.aggregator.hex(),
        "endpoint": {
            "uri": view.uri,
            "cert_digest": "0x" + view.cert_digest.hex(),
            "next_cert_digest": "0x" + view.next_cert_digest.hex(),
        },
        "members": [
            {
                "node": "0x" + member.node.hex(),
                "payee": "0x" + member.payee.hex(),
                "dataset_root": "0x" + member.dataset_root.hex(),
                "records": member.records,
            }
            for member in sorted(view.members.values(), key=lambda member: member.node)
        ],
    }


def state(view: "RunView") -> str:
    """In a word: not started, open, finishing (the open round is the last) or finished."""
    if view.finished:
        return "finished"
    if view.opening is None:
        return "not started"
    return "finishing" if view.last is not None else "open"
