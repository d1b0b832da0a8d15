# SPDX-License-Identifier: Apache-2.0
"""One transaction at its two ends: signed, and as its receipt says it was mined."""

from dataclasses import dataclass
from typing import Any

from eth_account import Account

from flb.chain.events import digest
from flb.chain.fees import Fees
from flb.chain.outbox import Attempt, Entry
from flb.types import Address, Block, Digest


@dataclass(frozen=True, slots=True)
class Mined:
    """A mined transaction."""

    tx: Digest
    gas_used: int
    block: Block
    logs: tuple[Any, ...]
    contract: Address | None


def sign(entry: Entry, fees: Fees, key: bytes) -> Attempt:
    """A signed transaction of type 2 (EIP-1559) for an entry."""
    transaction = {
        "type": 2,
        "chainId": entry.chain_id,
        "nonce": entry.nonce,
        "gas": entry.gas,
        "maxPriorityFeePerGas": fees.tip,
        "maxFeePerGas": fees.most,
        "value": 0,
        "data": "0x" + entry.data.hex(),
        **({"to": entry.to} if entry.to is not None else {}),
    }
    signed = Account.sign_transaction(transaction, key)
    return Attempt(Digest(bytes(signed.hash)), bytes(signed.raw_transaction), fees)


def mined_of(tx: Digest, receipt: Any) -> Mined:
    """A receipt as JSON-RPC gives it. Raises one of `flb.chain.rpc.MALFORMED` for another form."""
    block = Block(int(receipt["blockNumber"], 16), digest(receipt["blockHash"]))
    made = receipt.get("contractAddress")
    contract = Address(bytes.fromhex(made[2:])) if made else None
    return Mined(tx, int(receipt["gasUsed"], 16), block, tuple(receipt["logs"]), contract)
