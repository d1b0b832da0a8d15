# SPDX-License-Identifier: Apache-2.0
"""What waiting for a receipt asks an endpoint: the head at every look, all else once a block and in long pauses."""

import json
from typing import Any

import pytest

from flb.chain import sender as sender_module
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.types import Address
from tests.chains import serving

pytestmark = pytest.mark.e2e

RUN = Address(b"\x11" * 20)
WORD = "0x" + "22" * 32
ANSWERS: dict[str, Any] = {
    "eth_chainId": "0x7a69",
    "eth_estimateGas": "0x5208",
    "eth_getBlockByNumber": {"number": "0x5", "hash": WORD, "baseFeePerGas": "0x1", "timestamp": "0x1"},
    "eth_maxPriorityFeePerGas": "0x1",
}
MINED = {
    "status": "0x1",
    "blockNumber": "0x6",
    "blockHash": WORD,
    "gasUsed": "0x1",
    "contractAddress": None,
    "logs": [],
}


class Waiting:
    """A chain that mines the transaction with block 6, which comes at look number `looks`; with `drops` the pool has
    forgotten it from the second look on."""

    def __init__(self, looks: int, drops: bool = False) -> None:
        self.looks, self.drops = looks, drops
        self.asked: list[str] = []

    def __call__(self, request: Any) -> bytes:
        method = request["method"]
        self.asked.append(method)
        return json.dumps({"jsonrpc": "2.0", "id": 1, "result": self.result(method)}).encode()

    def result(self, method: str) -> Any:
        mined = self.asked.count("eth_blockNumber") >= self.looks
        match method:
            case "eth_blockNumber":
                return "0x6" if mined else "0x5"
            case "eth_getTransactionReceipt":
                return MINED if mined else None
            case "eth_getTransactionCount":
                return "0x1" if mined else "0x0"
            case "eth_getTransactionByHash":
                return None if self.drops and self.asked.count(method) > 1 else {"hash": WORD}
            case "eth_sendRawTransaction":
                return WORD
        return ANSWERS[method]


def sent_to(chain: Waiting) -> list[str]:
    """What a call asks from the moment it was handed over on."""
    with serving(chain) as url:
        Sender(Rpc(url), b"\x01" * 32, RUN).start()
    return chain.asked[chain.asked.index("eth_sendRawTransaction") + 1 :]


def test_wait__no_block_comes__asks_the_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "QUIET_SECONDS", 1000.0)
    first = ["eth_blockNumber", "eth_getTransactionReceipt", "eth_getTransactionCount", "eth_getTransactionByHash"]
    last = ["eth_blockNumber", "eth_getTransactionReceipt"]
    assert sent_to(Waiting(looks=6)) == [*first, *["eth_blockNumber"] * 4, *last]


def test_wait__dropped_while_no_block_comes__is_handed_over_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "QUIET_SECONDS", 0.0)
    assert "eth_sendRawTransaction" in sent_to(Waiting(looks=4, drops=True))


def test_wait__count_risen_before_the_receipt_is_there__looks_once_more_without_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An endpoint that has the new state before the receipts; the nonce is the call's own all the same."""
    monkeypatch.setattr(sender_module, "QUIET_SECONDS", 1000.0)

    class Late(Waiting):
        def result(self, method: str) -> Any:
            if method == "eth_getTransactionReceipt" and self.asked.count(method) < 3:
                return None
            return super().result(method)

    assert sent_to(Late(looks=2))[-3:] == ["eth_getTransactionCount", "eth_blockNumber", "eth_getTransactionReceipt"]
