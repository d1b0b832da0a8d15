# SPDX-License-Identifier: Apache-2.0
"""What transactions cost, from their receipts; those of old blocks are kept in a file, since they do not change."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flb.chain.rpc import MALFORMED, Rpc, malformed
from flb.errors import ChainUnavailable
from flb.events import Place
from flb.store import write_atomic
from flb.types import Address


@dataclass(frozen=True, slots=True)
class Spent:
    """Who paid how much for one transaction."""

    payer: Address
    gas: int
    wei: int


def spent(rpc: Rpc, places: Iterable[Place], cache: Path | None = None) -> list[Spent]:
    """The cost of every transaction that these events come from, each once, in batches of requests.

    `cache` is a file of this program alone; what it says of a transaction counts only for the same block, so a reorg
    makes it worthless by itself. Raises ChainUnavailable.
    """
    wanted = {"0x" + place.tx.hex(): "0x" + place.block.hash.hex() for place in places}
    known = _read(cache)
    missing = [tx for tx, block in wanted.items() if f"{tx}@{block}" not in known]
    for tx, receipt in zip(missing, rpc.batch("eth_getTransactionReceipt", missing), strict=True):
        if receipt is None:
            raise ChainUnavailable(f"the chain at {rpc.url} has no receipt of {tx}", "trying again")
        try:
            gas, price = int(receipt["gasUsed"], 16), int(receipt.get("effectiveGasPrice", "0x0"), 16)
            known[f"{tx}@{receipt['blockHash']}"] = [receipt["from"], gas, gas * price]
        except MALFORMED as error:
            raise malformed(rpc.url, "eth_getTransactionReceipt") from error
    if cache is not None and missing:
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(cache, json.dumps(known).encode())
    try:
        found = [known[f"{tx}@{block}"] for tx, block in wanted.items()]
        return [Spent(Address(bytes.fromhex(payer[2:])), int(gas), int(wei)) for payer, gas, wei in found]
    except MALFORMED as error:
        raise ChainUnavailable(f"the chain at {rpc.url} was reordered while it was read", "trying again") from error


def _read(cache: Path | None) -> dict[str, Any]:
    """What the file holds; nothing if it is not there or damaged, which costs a few requests."""
    try:
        held = json.loads(cache.read_bytes()) if cache is not None else {}
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}
