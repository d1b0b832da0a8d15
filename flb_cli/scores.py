# SPDX-License-Identifier: Apache-2.0
"""`flb scores RUN`: who scored what, from the record of a sealed round, checked against the roots on chain.

RUN is a contract address, whose aggregator gives the record, or the folder of a run. The record's digest and its scores
root must be those of the chain; each node's proof leads to that root, so a line can be shown to anybody.
"""

import argparse
import dataclasses
import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb.errors import DigestMismatch, NotListed, Unavailable

if TYPE_CHECKING:
    from flb import events as chain
    from flb.records import Record
    from flb.roster import RunView
    from flb_cli.verify import Material


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    from flb_cli.chain import number

    text = "show the scores and payouts of a run after a round, checked against the chain"
    parser = subparsers.add_parser("scores", help=text, description=text)
    add_run(parser)
    parser.add_argument("--round", type=number, metavar="N", help="a sealed round (default: the newest)")
    parser.set_defaults(run=run)


def add_run(parser: argparse.ArgumentParser) -> None:
    """What names a run on the command line."""
    from flb_cli.verify import LOCAL_RPC

    parser.add_argument("run_name", metavar="RUN", help="address of the run's contract, or the folder of a run")
    parser.add_argument("--rpc", metavar="URL", help=f"JSON-RPC endpoint (default: the folder's own, else {LOCAL_RPC})")
    parser.add_argument(
        "--blobs",
        type=Path,
        metavar="FOLDER",
        help="work folder of a node, which keeps the records that claims need: looked into first",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fetch, check and print."""
    from flb.roster import fold

    with tempfile.TemporaryDirectory(prefix="flb-scores-") as cache:
        material = found(arguments, Path(cache))
        view = fold(material.events)
        rolled = sealed_round(view, arguments.round)
        record = fetch_record(material, rolled)
    result = described(record, rolled, view)
    print(json.dumps(result) if arguments.json else in_words(result))
    return 0


def found(arguments: argparse.Namespace, cache: Path) -> "Material":
    """The run that the command line names; blobs come from `--blobs` first, and then no aggregator is needed."""
    from flb.errors import ConfigError
    from flb.store import BlobStore
    from flb_cli.verify import find

    if arguments.blobs is not None and not (arguments.blobs / "blobs").is_dir():
        raise ConfigError(f"{arguments.blobs} holds no blobs", "give the work folder of a node or of an aggregator")
    material = find(arguments.run_name, arguments.rpc, False, cache)
    if arguments.blobs is None:
        return material
    here, elsewhere = BlobStore(arguments.blobs / "blobs"), material.fetch
    fetch = lambda digest: here.path(digest) if here.has(digest) else elsewhere(digest)  # noqa: E731
    return dataclasses.replace(material, fetch=fetch)


def sealed_round(view: "RunView", number: int | None) -> "chain.ChainRoundRolled":
    """The event of a sealed round, the newest for None. Raises NotListed."""
    for rolled in reversed(view.rolls):
        if number is None or rolled.round == number:
            return rolled
    what = "no round is sealed yet" if number is None else f"round {number} is not sealed"
    raise NotListed(what, "flb chain status shows where the run stands")


def fetch_record(material: "Material", rolled: "chain.ChainRoundRolled") -> "Record":
    """The record of a sealed round, with the standings that the roots on chain commit to. Raises Unavailable,
    DigestMismatch or BadMessage."""
    from flb import payouts, records

    path = material.fetch(rolled.record_digest)
    if path is None:
        remedy = material.broken[0] if material.broken else "is the aggregator running? else give the folder of the run"
        raise Unavailable(f"the record of round {rolled.round} cannot be fetched", remedy)
    blob = path.read_bytes()
    if hashlib.sha256(blob).digest() != rolled.record_digest:
        raise DigestMismatch(f"the record of round {rolled.round} differs from its digest on chain", "run flb verify")
    record = records.decode(blob)
    if payouts.scores_tree(record.standings).root != rolled.scores_root:
        raise DigestMismatch(f"the scores root of round {rolled.round} on chain is another", "run flb verify")
    return record


def described(record: "Record", rolled: "chain.ChainRoundRolled", view: "RunView") -> dict[str, Any]:
    """The result as JSON; amounts are decimal digits in a text, in the smallest unit of the token."""
    from flb import payouts

    tree = payouts.scores_tree(record.standings)
    return {
        "run": "0x" + record.domain.run.hex(),
        "round": record.round,
        "scores_root": "0x" + rolled.scores_root.hex(),
        "payout_root": "0x" + rolled.payout_root.hex(),
        "payout_round": view.payout_round,
        "nodes": [
            {
                **payouts.standing_to_json(row),
                "claimed": str(view.claimed.get(row.node, 0)),
                "proof": ["0x" + sibling.hex() for sibling in tree.proof(index)],
            }
            for index, row in enumerate(record.standings)
        ],
    }


def in_words(result: dict[str, Any]) -> str:
    """The table for people."""
    names = ("node", "score", "total", "payout", "claimed")
    rows = [names, *(tuple(line[name] for name in names) for line in result["nodes"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    lines = [
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(pairs))
        for pairs in (tuple(zip(row, widths, strict=True)) for row in rows)
    ]
    head = f"run {result['run']} after round {result['round']}: scores root {result['scores_root']}, as on chain"
    return "\n".join([head, *lines])
