# SPDX-License-Identifier: Apache-2.0
"""`flb chain events`: every event of a run, for people or as JSON lines, and what a reorg takes back while it follows."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from string import Formatter
from typing import TYPE_CHECKING, Any

from flb.errors import ConfigError, Unavailable
from flb.events import ChainEvent, ChainRelaySkipped, ChainRoundRolled, ChainRoundVoided, ChainRunStarted

if TYPE_CHECKING:
    from flb.chain.registry import Registry

POLL_SECONDS = 0.5


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    from flb_cli.chain import add_reader, number

    verb = add_reader(verbs, "events", "print every event of a run in the order of the chain")
    verb.add_argument(
        "--deploy-block", type=number, metavar="N", help="first block to read (default: where the contract appeared)"
    )
    verb.add_argument("--follow", action="store_true", help="go on until interrupted, and say what a reorg takes back")
    verb.add_argument(
        "--confirmations", type=number, default=0, metavar="N", help="print what has N blocks on top of it (default: 0)"
    )
    verb.add_argument(
        "--link",
        metavar="TEMPLATE",
        help="address of a transaction in an explorer, with {tx} and {block}: https://explorer.example/tx/{tx}",
    )
    verb.set_defaults(run=events)


@dataclass(frozen=True, slots=True)
class Token:
    """How amounts are written: the token's symbol and decimals."""

    symbol: str
    decimals: int

    def shown(self, amount: int) -> str:
        """An amount of the smallest unit in whole tokens, exact."""
        whole, rest = divmod(amount, 10**self.decimals)
        digits = str(rest).rjust(self.decimals, "0").rstrip("0") if rest else ""
        return f"{whole}{'.' + digits if digits else ''} {self.symbol}"


def events(arguments: argparse.Namespace) -> int:
    """`flb chain events`. Raises ConfigError for a template that names something else."""
    from flb_cli.chain import reader
    from flb_cli.chain_up import stop_on_signals

    check_link(arguments.link)
    stop = stop_on_signals() if arguments.follow else None
    registry = reader(arguments)[1]
    printer = Printer(arguments.json, arguments.link, None if arguments.json else read_token(registry))
    printer.update(registry.events)
    away = False
    while stop is not None and not stop.wait(POLL_SECONDS):
        try:
            registry.poll()
            printer.update(registry.events)
            away = False
        except Unavailable as error:
            if not away:
                print(f"flb: {error}; waiting", file=sys.stderr, flush=True)
            away = True
    return 0


def check_link(template: str | None) -> None:
    """Raise ConfigError unless the template has nothing but {tx} and {block}."""
    try:
        parts = list(Formatter().parse(template or ""))
    except ValueError:
        parts = [("", "", "", None)]
    if any(name is not None and (name not in ("tx", "block") or how or turned) for _, name, how, turned in parts):
        raise ConfigError(f"--link is {template!r}", "write {tx} or {block} where they belong")


def read_token(registry: "Registry") -> Token | None:
    """The run's token, None where it has none or the token does not say."""
    from flb.chain.registry import call_view
    from flb.errors import FLBError
    from flb.types import ZERO_ADDRESS

    try:
        (token,) = call_view(registry.rpc, registry.domain.run, "token")
        if token == ZERO_ADDRESS:
            return None
        (symbol,) = call_view(registry.rpc, token, "symbol", contract="FLBToken")
        (decimals,) = call_view(registry.rpc, token, "decimals", contract="FLBToken")
    except FLBError:
        return None  # amounts are then written in the smallest unit
    return Token("".join(c for c in symbol if c.isprintable())[:16], decimals)


class Printer:
    """Prints what is new, once; what a reorg took away is named before what came instead."""

    def __init__(self, as_json: bool, link: str | None, token: Token | None) -> None:
        self.as_json, self.link, self.token = as_json, link, token
        self.printed: list[ChainEvent] = []

    def update(self, now: Sequence[ChainEvent]) -> None:
        """Print the difference between what was printed and what holds now."""
        kept = len(self.printed)
        while kept and (kept > len(now) or now[kept - 1] != self.printed[kept - 1]):
            kept -= 1  # a block names the one before, so what stands before an equal event is equal too
        if kept < len(self.printed):
            self.rewound(self.printed[kept:])
        elif kept == len(now):
            return
        for number, event in islice(with_rounds(now), kept, None):
            line = described(event, number, self.link)
            print(json.dumps(line) if self.as_json else worded(line, self.token))
        self.printed = list(now)
        sys.stdout.flush()

    def rewound(self, gone: Sequence[ChainEvent]) -> None:
        """Say which events do not hold any more."""
        first = gone[0].place.block.number
        if self.as_json:
            line = {"event": "Rewind", "block": first, "tx": None, "args": {"events": len(gone)}}
            print(json.dumps(line))
        else:
            print(f"rewind: the chain was reordered, {len(gone)} events from block {first} on do not hold any more")


def with_rounds(events: Sequence[ChainEvent]) -> Iterator[tuple[int, ChainEvent]]:
    """Each event with the round it belongs to: its own, else the one that was open then, 0 before the first."""
    current = 0
    for event in events:
        own = getattr(event, "round", None)
        if isinstance(event, ChainRunStarted):
            own = current = 1
        yield (current if own is None else own), event
        if isinstance(event, ChainRoundRolled | ChainRoundVoided):
            current = event.round + 1


def described(event: ChainEvent, number: int, link: str | None) -> dict[str, Any]:
    """An event as a JSON line: as events.jsonl has it, with the round and the explorer's address."""
    from flb.chain.events import to_json
    from flb.chain.refusal import error_name

    line = {**to_json(event), "round": number}
    if isinstance(event, ChainRelaySkipped):
        line["error"] = error_name(event.reason)
    if link:
        line["link"] = link.format(tx=line["tx"], block=line["block"])
    return line


def printable(text: str) -> str:
    """A text of somebody else for a terminal, which would obey its control signs."""
    return "".join(c if c.isprintable() else "?" for c in text)


def utc(seconds: int) -> str:
    """A time of the chain for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def amount_of(token: Token | None, amount: int) -> str:
    """An amount for people, in the token or, where it is not known, in its smallest unit."""
    return token.shown(amount) if token else f"{amount} of the smallest unit"


def worded(line: dict[str, Any], token: Token | None) -> str:
    """An event for people: block, round, name, and every field by its name; the explorer's address or the hash last."""
    words = []
    for name, value in line["args"].items():
        if name == "round":
            continue
        if name == "amount":
            value = amount_of(token, value)
        elif name == "deadline":
            value = utc(value)
        elif name == "reason":
            value = line["error"]
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif isinstance(value, str) and value.startswith("0x") and len(value) == 66:
            value = value[:18] + "…"
        elif isinstance(value, str):
            value = printable(value)
        words.append(f"{name} {value}")
    where = f"round {line['round']}" if line["round"] else "before round 1"
    return f"block {line['block']}, {where}: {line['event']} {', '.join(words)}  {line.get('link', line['tx'])}"
