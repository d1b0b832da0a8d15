# SPDX-License-Identifier: Apache-2.0
"""Logs to typed events, and events to JSON lines and back. Pure; unknown topics are ignored.

Logs are decoded by hand, word by word, which takes a tenth of the time of a general decoder. Event classes take their
fields in the order of the Solidity event's parameters, so one table serves both ways.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, get_type_hints

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
    "KeyRotated": chain.ChainKeyRotated,
    "PayeeSet": chain.ChainPayeeSet,
    "DatasetRevoked": chain.ChainDatasetRevoked,
    "AdmitterSet": chain.ChainAdmitterSet,
    "RelaySkipped": chain.ChainRelaySkipped,
    "PayoutActivated": chain.ChainPayoutActivated,
    "PayoutCancelled": chain.ChainPayoutCancelled,
    "Claimed": chain.ChainClaimed,
}


NAMES = {kind: name for name, kind in CLASSES.items()}
WORD = 32


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an event's fields stand in a log: every parameter takes one word, a topic where it is indexed.

    Source: https://docs.soliditylang.org/en/latest/abi-spec.html#events
    """

    kind: Any
    topics: int
    fields: tuple[tuple[Callable[[bytes, bytes], Any], bool, int], ...]
    """The word's reader, whether it is a topic, and its position: number of the topic, or offset in the data."""


@lru_cache(maxsize=1)
def layouts() -> dict[str, Layout]:
    """The layout of every event of ours, by topic in hex."""
    found = {}
    for topic, item in abi.load("FLBRun").events.items():
        if item.name in CLASSES:
            topics, head, parts = 1, 0, []
            for kind, indexed in zip(item.inputs, item.indexed, strict=True):
                parts.append((_reader(kind), indexed, topics if indexed else head))
                topics, head = (topics + 1, head) if indexed else (topics, head + WORD)
            found["0x" + topic.hex()] = Layout(CLASSES[item.name], topics, tuple(parts))
    return found


def from_log(log: Any) -> ChainEvent | None:
    """A raw JSON-RPC log as a value; None for a topic that is not ours. Raises ChainUnavailable if it is malformed."""
    try:
        topics = log["topics"]
        layout = layouts().get(topics[0].lower()) if len(topics) else None
        if layout is None:
            for topic in topics:
                digest(topic)
            return None
        if len(topics) != layout.topics:
            raise ValueError(len(topics))
        data = bytes.fromhex(log["data"][2:])
        values = [
            read(bytes.fromhex(topics[at][2:]) if indexed else data[at : at + WORD], data)
            for read, indexed, at in layout.fields
        ]
        block = _block(log["blockNumber"], log["blockHash"])
        place = Place(block, int(log["logIndex"], 16), digest(log["transactionHash"]))
    except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ChainUnavailable("the chain's answer holds a malformed log", "use another RPC endpoint") from error
    event: ChainEvent = layout.kind(place, *values)
    return event


@lru_cache(maxsize=64)
def _block(number: str, block_hash: str) -> Block:
    """The events of a block share its object: a long replay holds one hash a block."""
    return Block(int(number, 16), digest(block_hash))


def _reader(kind: str) -> Callable[[bytes, bytes], Any]:
    """What reads a value of this type from its word; raises ValueError where bytes outside the type are set."""
    if kind == "address":
        return lambda word, _: Address(_tail(word, 20))
    if kind == "bool":
        return lambda word, _: (False, True)[_tail(word, 1)[0]]
    if kind.startswith("uint"):
        size = int(kind[4:]) // 8
        return lambda word, _: int.from_bytes(_tail(word, size), "big")
    if kind.startswith("bytes") and kind != "bytes":
        size = int(kind[5:])
        return lambda word, _: _front(word, size)
    if kind == "string":
        return _string
    raise AssertionError(f"an event of our own contract has a parameter of type {kind}, which no reader here decodes")


def _tail(word: bytes, size: int) -> bytes:
    if len(word) != WORD or any(word[: WORD - size]):
        raise ValueError(word)
    return word[WORD - size :]


def _front(word: bytes, size: int) -> bytes:
    if len(word) != WORD or any(word[size:]):
        raise ValueError(word)
    return word[:size]


def _string(word: bytes, data: bytes) -> str:
    start = int.from_bytes(_front(word, WORD), "big")
    size = int.from_bytes(_front(data[start : start + WORD], WORD), "big")
    text = data[start + WORD : start + WORD + size]
    if len(text) != size:
        raise ValueError(size)
    # a Solidity string may hold any bytes, and one endpoint that is no UTF-8 must not make a run unreadable
    return text.decode(errors="replace")


def digest(text: str) -> Digest:
    """A hash as JSON-RPC writes it. Raises ValueError or TypeError for anything else."""
    value = bytes.fromhex(text[2:])
    if len(value) != 32:
        raise ValueError(len(value))
    return Digest(value)


def to_json(event: ChainEvent) -> dict[str, Any]:
    """One line of events.jsonl: hex at the edge, block number and hash included, the event's own fields in `args`."""
    place = event.place
    line: dict[str, Any] = {
        "event": NAMES[type(event)],
        "block": place.block.number,
        "block_hash": "0x" + place.block.hash.hex(),
        "index": place.index,
        "tx": "0x" + place.tx.hex(),
    }
    args = {part.name: getattr(event, part.name) for part in fields(event)[1:]}
    line["args"] = {k: "0x" + value.hex() if isinstance(value, bytes) else value for k, value in args.items()}
    return line


def from_json(line: Any) -> ChainEvent:
    """The inverse of `to_json`. Raises KeyError, ValueError or TypeError for other JSON."""
    kind = CLASSES[line["event"]]
    block = Block(int(line["block"]), Digest(bytes.fromhex(line["block_hash"][2:])))
    place = Place(block, int(line["index"]), Digest(bytes.fromhex(line["tx"][2:])))
    hints = get_type_hints(kind)
    values = []
    for part in fields(kind)[1:]:
        value, wanted = line["args"][part.name], hints[part.name]
        base = getattr(wanted, "__supertype__", wanted)
        values.append(bytes.fromhex(value[2:]) if base is bytes else value)
        if type(values[-1]) is not base:
            raise TypeError(f"{line['event']}.{part.name}")
    event: ChainEvent = kind(place, *values)
    return event
