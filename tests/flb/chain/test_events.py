# SPDX-License-Identifier: Apache-2.0
"""Logs become values and back; what a bad endpoint sends becomes ChainUnavailable and nothing else."""

import json
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from flb.chain import abi
from flb.chain.events import CLASSES, from_json, from_log, to_json
from flb.errors import ChainUnavailable
from flb.events import ChainEndpointSet, ChainEvent, Place
from flb.types import Block, Digest

pytestmark = pytest.mark.unit

PLACE = Place(Block(70_000, Digest(b"\xb1" * 32)), 3, Digest(b"\x77" * 32))
ITEMS = {item.name: item for item in abi.load("FLBRun").events.values()}
SAMPLES: dict[str, Any] = {
    "address": b"\x0a" * 20,
    "bytes32": b"\x32" * 32,
    "bytes4": b"\x04" * 4,
    "uint32": 2**32 - 1,
    "uint40": 2**40 - 1,
    "uint64": 2**64 - 1,
    "uint256": 2**256 - 1,
    "string": "flb.example:7400 ü",
    "bool": True,
}


def an_event(name: str) -> ChainEvent:
    """An event with every field at the end of its range, each digest and address another."""
    values = []
    for index, kind in enumerate(ITEMS[name].inputs):
        value = SAMPLES[kind]
        values.append(bytes([index]) + value[1:] if isinstance(value, bytes) else value)
    event: ChainEvent = CLASSES[name](PLACE, *values)
    return event


def a_log(name: str) -> dict[str, Any]:
    """The log of `an_event`, as JSON-RPC gives it."""
    item, event = ITEMS[name], an_event(name)
    values = [getattr(event, part.name) for part in fields(event)[1:]]
    parts = list(zip(item.inputs, item.indexed, values, strict=True))
    topics = [item.signature, *(encode([kind], [value]) for kind, indexed, value in parts if indexed)]
    plain = [(kind, value) for kind, indexed, value in parts if not indexed]
    return {
        "address": "0x" + "0f" * 20,
        "topics": ["0x" + topic.hex() for topic in topics],
        "data": "0x" + encode([kind for kind, _ in plain], [value for _, value in plain]).hex(),
        "blockNumber": hex(PLACE.block.number),
        "blockHash": "0x" + PLACE.block.hash.hex(),
        "transactionHash": "0x" + PLACE.tx.hex(),
        "logIndex": hex(PLACE.index),
        "removed": False,
    }


@pytest.mark.parametrize("name", CLASSES)
def test_from_log__each_event__has_place_and_every_field(name: str) -> None:
    event = from_log(a_log(name))
    assert event == an_event(name)
    assert event is not None
    for part in fields(event)[1:]:
        hint = get_type_hints(type(event))[part.name]
        assert type(getattr(event, part.name)) is getattr(hint, "__supertype__", hint)


@pytest.mark.parametrize("name", CLASSES)
def test_from_json__written_event__comes_back_and_is_hex_in_json(name: str) -> None:
    event = an_event(name)
    line = json.dumps(to_json(event))
    assert from_json(json.loads(line)) == event
    assert json.loads(line)["block_hash"] == "0x" + "b1" * 32
    assert json.loads(line)["event"] == name


@pytest.mark.parametrize("name", CLASSES)
def test_from_json__field_missing_or_of_another_type__is_refused(name: str) -> None:
    line = to_json(an_event(name))
    for key in line["args"]:
        args = {other: value for other, value in line["args"].items() if other != key}
        for other in (args, {**args, key: None}):
            with pytest.raises((KeyError, ValueError, TypeError)):
                from_json({**line, "args": other})
    for key in line:
        with pytest.raises(KeyError):
            from_json({other: value for other, value in line.items() if other != key})
        with pytest.raises((KeyError, ValueError, TypeError)):
            from_json({**line, key: None})


def test_from_log__endpoint_that_is_no_utf8__stays_readable() -> None:
    """The contract takes any bytes as a string: one such event must not lock every reader out of the run."""
    log = a_log("EndpointSet")
    text = SAMPLES["string"].encode()
    event = from_log({**log, "data": log["data"].replace(text.hex(), (b"\xff\xfe" + text[2:]).hex())})
    assert isinstance(event, ChainEndpointSet)
    assert event.uri == "\ufffd\ufffd" + SAMPLES["string"][2:]


def test_from_log__topic_of_another_contract__is_none() -> None:
    log = a_log("NodeLeft")
    assert from_log({**log, "topics": ["0x" + "ab" * 32]}) is None
    assert from_log({**log, "topics": []}) is None


def test_from_log__inherited_event__is_none() -> None:
    topic = ITEMS["OwnershipTransferred"].signature
    assert from_log({**a_log("NodeLeft"), "topics": ["0x" + topic.hex()]}) is None


MALFORMED: dict[str, list[Any]] = {
    "topics": [None, 5, [5], ["0xzz"]],
    "data": [None, 7, "0x", "0x12", "0xzz"],
    "blockNumber": [None, 5, "0xzz"],
    "blockHash": [None, "0x12", "0xzz", "0x" + "00" * 33],
    "transactionHash": [None, "0x", 9],
    "logIndex": [None, "zz"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in MALFORMED.items() for value in values])
def test_from_log__malformed_field__is_chain_unavailable(key: str, value: Any) -> None:
    with pytest.raises(ChainUnavailable, match="malformed log"):
        from_log({**a_log("RoundRolled"), key: value})


@pytest.mark.parametrize("key", MALFORMED)
def test_from_log__missing_field__is_chain_unavailable(key: str) -> None:
    log = a_log("RoundRolled")
    del log[key]
    with pytest.raises(ChainUnavailable, match="malformed log"):
        from_log(log)


def test_from_log__too_few_topics__is_chain_unavailable() -> None:
    log = a_log("NodeRemoved")
    with pytest.raises(ChainUnavailable):
        from_log({**log, "topics": log["topics"][:2]})


def test_from_log__dirty_word__is_chain_unavailable() -> None:
    """An address or integer whose unused bytes are not zero is no answer of a contract."""
    log = a_log("NodeLeft")
    with pytest.raises(ChainUnavailable):
        from_log({**log, "topics": [log["topics"][0], "0x" + "ff" * 32]})


@pytest.mark.parametrize("log", [None, 5, "log", [], {}])
def test_from_log__no_object__is_chain_unavailable(log: Any) -> None:
    with pytest.raises(ChainUnavailable):
        from_log(log)


@given(name=st.sampled_from(sorted(CLASSES)), data=st.binary(max_size=400))
def test_from_log__any_data__is_an_event_or_chain_unavailable(name: str, data: bytes) -> None:
    log = {**a_log(name), "data": "0x" + data.hex()}
    try:
        event = from_log(log)
    except ChainUnavailable:
        return
    assert event is not None
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
