# SPDX-License-Identifier: Apache-2.0
"""The contracts as they were compiled (`make gen`): selectors, topics, types and bytecode from the shipped JSON."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from flb.merkle import keccak256


@dataclass(frozen=True, slots=True)
class Item:
    """A function, event or error: its name, selector or topic, and the types of its parameters."""

    name: str
    signature: bytes
    """32 bytes; the first four are the selector of a function or error."""
    inputs: tuple[str, ...]
    indexed: tuple[bool, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contract:
    """One compiled contract."""

    bytecode: bytes
    functions: dict[str, Item]
    events: dict[bytes, Item]
    errors: dict[bytes, Item]
    """By selector."""


def _type(parameter: Any) -> str:
    kind: str = parameter["type"]
    if kind.startswith("tuple"):
        return "(" + ",".join(_type(part) for part in parameter["components"]) + ")" + kind[5:]
    return kind


def _item(entry: Any) -> Item:
    inputs = tuple(_type(parameter) for parameter in entry["inputs"])
    signature = keccak256(f"{entry['name']}({','.join(inputs)})".encode())
    indexed = tuple(bool(parameter.get("indexed")) for parameter in entry["inputs"])
    return Item(entry["name"], signature, inputs, indexed, tuple(_type(part) for part in entry.get("outputs", [])))


@lru_cache(maxsize=8)
def load(name: str) -> Contract:
    """The contract of that name."""
    compiled = json.loads((files(__package__) / "abi" / f"{name}.json").read_text())
    items = {kind: [_item(e) for e in compiled["abi"] if e["type"] == kind] for kind in ("function", "event", "error")}
    return Contract(
        bytecode=bytes.fromhex(compiled["bytecode"][2:]),
        functions={item.name: item for item in items["function"]},
        events={item.signature: item for item in items["event"]},
        errors={item.signature[:4]: item for item in items["error"]},
    )
