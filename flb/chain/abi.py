# SPDX-License-Identifier: Apache-2.0
"""The contracts as they were compiled (`make gen`): selectors, topics, types and bytecode from the shipped JSON."""

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from flb.merkle import keccak256

CONTRACTS = ("FLBFactory", "FLBToken", "FLBRun")


@dataclass(frozen=True, slots=True)
class Item:
    """A function, event or error: its name, selector or topic, and the types of its parameters."""

    name: str
    signature: bytes
    """32 bytes; the first four are the selector of a function or error."""
    inputs: tuple[str, ...]
    names: tuple[str, ...]
    """Of the parameters, as Solidity has them."""
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
    names = tuple(parameter["name"] for parameter in entry["inputs"])
    return Item(
        entry["name"], signature, inputs, names, indexed, tuple(_type(part) for part in entry.get("outputs", []))
    )


@lru_cache(maxsize=1)
def errors() -> dict[bytes, Item]:
    """Every error that a transaction of ours can end with, by selector: the contracts' own, OpenZeppelin's that they
    inherit, and the two that the compiler makes.

    Source of the two: https://docs.soliditylang.org/en/latest/control-structures.html#panic-via-assert-and-error-via-require
    """
    made = {"Error": ("string", "reason"), "Panic": ("uint256", "code")}
    found = {}
    for name, (kind, parameter) in made.items():
        signature = keccak256(f"{name}({kind})".encode())
        found[signature[:4]] = Item(name, signature, (kind,), (parameter,), (False,), ())
    for contract in CONTRACTS:
        found |= load(contract).errors
    return found


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
