# SPDX-License-Identifier: Apache-2.0
"""`flb dataset`: commit to the data that a node trains on, take a commitment back, list a run's commitments, and check
data beforehand (`flb_cli.dataset_check`).

A commitment is a Merkle root over salted records. The salts come from the secret in the node's work folder, so the
root is the one that `flb-node` computes, and says nothing about the data.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flb.events import ChainDatasetRegistered, ChainDatasetRevoked, ChainEvent
from flb.types import Digest, Seconds
from flb_cli import dataset_check
from flb_cli.chain import add_reader, address, number
from flb_cli.node_act import act, actor, add_key, add_node


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verbs."""
    text = "check data; register, revoke and list datasets of a run"
    parser = subparsers.add_parser("dataset", help=text, description=text)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    dataset_check.register(verbs)
    verb = add_reader(verbs, "register", "commit to a dataset as a node; flb-node does it by itself")
    dataset_check.add_source(verb)
    verb.add_argument("--workdir", type=Path, required=True, metavar="FOLDER", help="the node's client.workdir")
    add_key(verb, "the node's present key")
    add_node(verb)
    verb.set_defaults(run=commit)

    verb = add_reader(verbs, "revoke", "take a commitment back; it counts no more from the next round on")
    verb.add_argument("root", type=digest, metavar="ROOT", help="the dataset's root: 0x and 64 hex digits")
    add_key(verb, "the node's present key")
    add_node(verb)
    verb.set_defaults(run=revoke)

    verb = add_reader(verbs, "list", "list the datasets that were registered in a run")
    verb.add_argument("--node", type=address, metavar="ADDRESS", help="of this node only")
    verb.add_argument(
        "--deploy-block", type=number, metavar="N", help="first block to read (default: it is looked for)"
    )
    verb.set_defaults(run=show)


def digest(text: str) -> Digest:
    """A root on the command line."""
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != 32 or not text.startswith("0x"):
        raise argparse.ArgumentTypeError(f"{text} is no root: give 0x and 64 hex digits")
    return Digest(value)


def commit(arguments: argparse.Namespace) -> int:
    """`flb dataset register`."""
    from flb.chain import membership_calls
    from flb.membership import Kind, Message
    from flb_node import commitment, data

    examples = data.read(dataset_check.source(arguments))
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    secret = commitment.load_secret(arguments.workdir)
    by = actor(arguments, "node")
    root, records = commitment.commit(by.node, map(data.record_bytes, examples), secret)
    message = Message(Kind.REGISTER_DATASET, by.node, 0, Seconds(0), root, records)
    said = f"0x{by.node.hex()} committed to {records} records, root 0x{root.hex()}"
    return act(
        by, message, lambda sender: membership_calls.register_dataset(sender, by.node, root, records), said,
        root="0x" + root.hex(), records=records,
    )  # fmt: skip


def revoke(arguments: argparse.Namespace) -> int:
    """`flb dataset revoke`."""
    from flb.chain import membership_calls
    from flb.membership import Kind, Message

    by = actor(arguments, "node")
    root: Digest = arguments.root
    message = Message(Kind.REVOKE_DATASET, by.node, 0, Seconds(0), root)
    said = f"0x{by.node.hex()} took back the dataset 0x{root.hex()}"
    return act(
        by, message, lambda sender: membership_calls.revoke_dataset(sender, by.node, root), said, root="0x" + root.hex()
    )


def show(arguments: argparse.Namespace) -> int:
    """`flb dataset list`."""
    from flb_cli.chain import reader

    found = listed(reader(arguments)[1].events)
    if arguments.node is not None:
        found = [item for item in found if item["node"] == "0x" + arguments.node.hex()]
    if arguments.json:
        print(json.dumps(found))
        return 0
    for item in found:
        print(
            f"{item['node']}  version {item['version']}  {item['records']} records  {item['root']}"
            f"{'  revoked' if item['revoked'] else ''}"
        )
    return 0


def listed(events: Iterable[ChainEvent]) -> list[dict[str, Any]]:
    """Registrations in the order of the chain; `revoked` where the same node took the root back afterwards."""
    found: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, ChainDatasetRegistered):
            found.append({
                "node": "0x" + event.node.hex(), "root": "0x" + event.root.hex(), "version": event.version,
                "records": event.records, "revoked": False,
            })  # fmt: skip
        elif isinstance(event, ChainDatasetRevoked):
            for item in found:
                if (item["node"], item["root"]) == ("0x" + event.node.hex(), "0x" + event.root.hex()):
                    item["revoked"] = True
    return found
