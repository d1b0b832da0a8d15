# SPDX-License-Identifier: Apache-2.0
"""Logs to typed events, and events to JSON lines and back. Pure; unknown topics are ignored.

Event classes take their fields in the order of the Solidity event's parameters, so one table serves both ways.
"""

from dataclasses import fields
from typing import Any, get_type_hints

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from flb import events as chain
from flb.chain import abi
from flb.errors import ChainUnavailable
from flb.events import ChainEvent, Place
from flb.types import Address, Block, Digest

CLASSES: dict[str, Any] = {
    "RunStarted": chain.ChainRunStarted,
    "RoundRolled": chain.ChainRoundRolled,
    "RoundVoided": chain.ChainRoundVoided,
    "RunFinishing": chain.ChainRunFinishing,
    "RunFinished": chain.ChainRunFinished,
    "NodeJoined": chain.ChainNodeJoined,
    "NodeLeft": chain.ChainNodeLeft,
    "NodeRemoved": chain.ChainNodeRemoved,
    "DatasetRegistered": chain.ChainDatasetRegistered,
    "EndpointSet": chain.ChainEndpointSet,
    "AggregatorSet": chain.ChainAggregatorSet,
}


def from_log(log: Any) -> ChainEvent | None:
    """A raw JSON-RPC log as a value; None for a topic that is not ours. Raises ChainUnavailable if it is malformed."""
    try:
        topics = [bytes.fromhex(topic[2:]) for topic in log["topics"]]
        item = abi.load("FLBRun").events.get(topics[0]) if topics else None
        kind = CLASSES.get(item.name) if item else None
        if item is None or kind is None:
            return None
        data = bytes.fromhex(log["data"][2:])
        plain = iter(decode([t for t, i in zip(item.inputs, item.indexed, strict=True) if not i], data))
        words = iter(topics[1:])
        values = [
            decode([t], next(words))[0] if i else next(plain) for t, i in zip(item.inputs, item.indexed, strict=True)
        ]
        block = Block(int(log["blockNumber"], 16), digest(log["blockHash"]))
        place = Place(block, int(log["logIndex"], 16), digest(log["transactionHash"]))
    except (KeyError, ValueError, TypeError, StopIteration, DecodingError) as error:
        raise ChainUnavailable("the chain's answer holds a malformed log", "use another RPC endpoint") from error
    event: ChainEvent = kind(place, *(_inside(t, value) for t, value in zip(item.inputs, values, strict=True)))
    return event


def digest(text: str) -> Digest:
    """A hash as JSON-RPC writes it. Raises ValueError or TypeError for anything else."""
    value = bytes.fromhex(text[2:])
    if len(value) != 32:
        raise ValueError(len(value))
    return Digest(value)


def _inside(kind: str, value: Any) -> Any:
    return Address(bytes.fromhex(value[2:])) if kind == "address" else value


def to_json(event: ChainEvent) -> dict[str, Any]:
    """One line of events.jsonl: hex at the edge, block number and hash included."""
    place = event.place
    line: dict[str, Any] = {
        "event": next(name for name, kind in CLASSES.items() if kind is type(event)),
        "block": place.block.number,
        "block_hash": "0x" + place.block.hash.hex(),
        "index": place.index,
        "tx": "0x" + place.tx.hex(),
    }
    for part in fields(event)[1:]:
        value = getattr(event, part.name)
        line[part.name] = "0x" + value.hex() if isinstance(value, bytes) else value
    return line


def from_json(line: Any) -> ChainEvent:
    """The inverse of `to_json`. Raises KeyError, ValueError or TypeError for other JSON."""
    kind = CLASSES[line["event"]]
    block = Block(int(line["block"]), Digest(bytes.fromhex(line["block_hash"][2:])))
    place = Place(block, int(line["index"]), Digest(bytes.fromhex(line["tx"][2:])))
    hints = get_type_hints(kind)
    values = []
    for part in fields(kind)[1:]:
        value, wanted = line[part.name], hints[part.name]
        base = getattr(wanted, "__supertype__", wanted)
        values.append(bytes.fromhex(value[2:]) if base is bytes else value)
        if type(values[-1]) is not base:
            raise TypeError(f"{line['event']}.{part.name}")
    event: ChainEvent = kind(place, *values)
    return event
