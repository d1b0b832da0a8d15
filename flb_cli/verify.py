# SPDX-License-Identifier: Apache-2.0
"""`flb verify RUN`: recompute a run and compare; RUN is a contract address or the folder of a run.

Exit codes: 0 exact or certified, 1 something differs, 3 what could be seen is right but not all could be.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flb.errors import ConfigError, CorruptStore, DigestMismatch, FLBError, LostChain, Unavailable
from flb.events import ChainEvent
from flb.types import Address, Digest, Domain

EXIT_CODES = {"exact": 0, "certified": 0, "fail": 1, "partial": 3}
LOCAL_RPC = "http://127.0.0.1:8545"


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "recompute every round of a run from the chain and the blobs, and compare"
    parser = subparsers.add_parser("verify", help=text, description=f"{text}. {__doc__.splitlines()[-1]}")
    parser.add_argument("run_name", metavar="RUN", help="address of the run's contract, or the folder of a run")
    parser.add_argument("--rpc", help=f"JSON-RPC endpoint (default: the folder's own, else {LOCAL_RPC})")
    parser.add_argument("--offline", action="store_true", help="ask no chain: work from the folder's events.jsonl")
    parser.add_argument("--cache", type=Path, help="where to keep blobs fetched for an address (default: flb-verify)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Material:
    """What a verdict rests on: events, where they came from, and how to see blobs."""

    events: Sequence[ChainEvent]
    domain: Domain
    fetch: Callable[[Digest], Path | None]
    trusted: tuple[str, ...]
    rpc: str | tuple[str, ...] | None
    """Endpoints of the chain that gave the events; None where none was asked or answered."""
    broken: list[str] = field(default_factory=list)
    """Blobs that were served with other bytes than their name says."""


def run(arguments: argparse.Namespace) -> int:
    """Verify and report."""
    from flb.audit import Finding
    from flb_cli.replay import replay

    signal.signal(signal.SIGTERM, stopped)
    material = find(arguments.run_name, arguments.rpc, arguments.offline, arguments.cache or Path("flb-verify"))
    report = replay(material.events, material.domain, material.fetch, lambda text: progress(text, arguments.json))
    report.trusted += material.trusted
    report.findings += [Finding(text) for text in material.broken]
    result = {
        "run": "0x" + material.domain.run.hex(),
        "chain_id": material.domain.chain_id,
        "verdict": report.verdict,
        "rounds": report.rounds,
        "findings": [
            {
                "round": finding.round,
                "node": "0x" + finding.node.hex() if finding.node else None,
                "tensor": finding.tensor,
                "what": finding.what,
            }
            for finding in report.findings
        ],
        "proved": report.proved,
        "trusted": report.trusted,
        "unchecked": report.unchecked,
    }
    print(json.dumps(result) if arguments.json else in_words(result, report.findings))
    return EXIT_CODES[report.verdict]


def find(name: str, rpc_url: str | None, offline: bool, cache: Path) -> Material:
    """The run that a name on the command line means: the folder of a run, or the address of its contract."""
    path = Path(name)
    if len(name) < 4096 and os.path.isdir(path):  # noqa: PTH112 - never raises
        return from_folder(path, rpc_url, offline)
    if is_address(name):
        return from_address(name, rpc_url or LOCAL_RPC, cache)
    raise ConfigError(f"{name} is no folder and no address", "give one of the two")


def stopped(number: int, frame: object) -> None:
    """SIGTERM ends the command without a verdict, and says so; nothing is printed on stdout."""
    print("flb: stopped before a verdict; nothing is proved", file=sys.stderr)
    sys.exit(0)


def progress(text: str, quiet: bool) -> None:
    """Say what is being checked, on a terminal."""
    if not quiet and sys.stderr.isatty():
        print(f"checking {text} …", file=sys.stderr)


def in_words(result: dict[str, Any], findings: Sequence[object]) -> str:
    """The report for people."""
    lines = [f"{result['verdict']}: run {result['run']} on chain {result['chain_id']}, {len(result['rounds'])} rounds"]
    lines += [f"  differs    {finding}" for finding in findings]
    lines += [f"  proved     {text}" for text in result["proved"]]
    lines += [f"  unchecked  {text}" for text in result["unchecked"]]
    lines += [f"  trusted    {text}" for text in result["trusted"]]
    return "\n".join(lines)


def is_address(text: str) -> bool:
    """0x and 40 hex digits."""
    return len(text) == 42 and text.startswith("0x") and all(c in "0123456789abcdefABCDEF" for c in text[2:])


def from_folder(folder: Path, rpc_url: str | None, offline: bool) -> Material:
    """The folder of a run: its chain if it answers, else the events that were written down."""
    from flb.store import BlobStore

    work = folder / "aggregator" if (folder / "aggregator" / "run.json").exists() else folder
    try:
        note = json.loads((work / "run.json").read_text())
        domain = Domain(int(note["chain_id"]), Address(bytes.fromhex(note["run"][2:])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{folder} is not the folder of a run", "give the folder that holds run.json") from error
    blobs = BlobStore(work / "blobs")

    def fetch(digest: Digest) -> Path | None:
        return blobs.path(digest) if blobs.has(digest) else None

    simulated = note.get("rpc", "") is None
    if not offline and (rpc_url is not None or not simulated):
        try:
            urls = rpc_url or endpoints(note["rpc"])
            return Material(read_chain(urls, domain, int(note["deploy_block"])), domain, fetch, (), urls)
        except (Unavailable, LostChain):
            if rpc_url is not None:
                raise
    events, name = read_events(folder, work)
    return Material(events, domain, fetch, (f"no chain answered: the registry's events come from {name}",), None)


def read_events(*folders: Path) -> tuple[list[ChainEvent], str]:
    """The events that a run's folder keeps."""
    from flb.chain.events import from_json

    for folder in folders:
        path = folder / "events.jsonl"
        if path.exists():
            try:
                lines = path.read_text().splitlines()
                return [from_json(json.loads(line)) for line in lines if line], path.name
            except (ValueError, KeyError, TypeError) as error:
                raise CorruptStore(f"{path} is damaged", "fetch it again, or verify against the chain") from error
    raise Unavailable("no chain answers and the folder has no events.jsonl", "give --rpc of a chain that has the run")


def endpoints(noted: Any) -> str | tuple[str, ...]:
    """`chain.rpc` as run.json keeps it: one URL or a list."""
    return tuple(map(str, noted)) if isinstance(noted, list) else str(noted)


def read_chain(rpc_url: str | tuple[str, ...], domain: Domain, deploy_block: int | None) -> list[ChainEvent]:
    """All events of a run."""
    from flb.chain.registry import Registry, find_deploy_block
    from flb.chain.rpc import connect

    rpc = connect(rpc_url)
    if deploy_block is None:
        deploy_block = find_deploy_block(rpc, domain.run)
    registry = Registry(rpc, domain, deploy_block)
    registry.poll()
    return registry.events


def from_address(address: str, rpc_url: str, cache: Path) -> Material:
    """A run on a chain: blobs come from the aggregator's endpoint, as a stranger gets them."""
    from flb.chain.rpc import Rpc
    from flb.roster import fold
    from flb.store import BlobStore
    from flb_node.channel import endpoint_of
    from flb_node.uplink import Uplink

    domain = Domain(Rpc(rpc_url).chain_id(), Address(bytes.fromhex(address[2:])))
    events = read_chain(rpc_url, domain, None)
    view = fold(events)
    blobs = BlobStore(cache)
    uplink = None
    if view.uri:
        try:
            uplink = Uplink(endpoint_of(view), domain, lambda: view.aggregator, Address(bytes(20)), bytes(32))
        except FLBError as error:  # without blobs the verdict is partial
            print(f"flb: no blob can be fetched: {error}", file=sys.stderr)
    broken: list[str] = []

    def fetch(digest: Digest) -> Path | None:
        try:
            return uplink.download(digest, blobs) if uplink else None
        except DigestMismatch:
            broken.append(f"the aggregator serves other bytes under the name {digest.hex()}")
            return None
        except FLBError:
            return None

    return Material(events, domain, fetch, (), rpc_url, broken)
