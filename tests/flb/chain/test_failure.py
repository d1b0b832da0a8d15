# SPDX-License-Identifier: Apache-2.0
"""Why a mined transaction failed, asked of an endpoint: at its block, before it, or not to be had any more."""

import json
from typing import Any

import pytest
from eth_abi.abi import encode

from flb.chain.failure import failure
from flb.chain.rpc import Rpc
from flb.chain.transaction import Mined
from flb.errors import ContractRefused
from flb.merkle import keccak256
from flb.types import Block, Digest
from tests.chains import serving

pytestmark = pytest.mark.e2e

TOO_EARLY = "0x" + (keccak256(b"FLBTooEarly(uint40)")[:4] + encode(["uint40"], [9])).hex()
REVERTED = {"error": {"code": 3, "message": "execution reverted", "data": TOO_EARLY}}
PASSES: dict[str, Any] = {"result": "0x"}
FORGOTTEN = {"error": {"code": -32000, "message": "missing trie node"}}
POOR = {"error": {"code": -32000, "message": "insufficient funds for gas * price + value"}}
BARE = {"error": {"code": 3, "message": "execution reverted"}}
TX = Digest(b"\x07" * 32)


def found(at: dict[str, Any], before: dict[str, Any]) -> tuple[ContractRefused, list[str]]:
    """The error for a transaction of block 9, and the blocks that were asked."""
    asked: list[str] = []

    def answer(request: Any) -> bytes:
        asked.append(request["params"][1])
        assert request["method"] == "eth_call" and request["params"][0]["gas"] == "0x5"
        return json.dumps({"id": 1, **(at if asked[-1] == "0x9" else before)}).encode()

    with serving(answer) as url:
        return failure(Rpc(url), {"gas": "0x5"}, Mined(TX, 5, Block(9, TX), (), None)), asked


@pytest.mark.parametrize(
    ("at", "before", "blocks"),
    [(REVERTED, PASSES, ["0x9"]), (PASSES, REVERTED, ["0x9", "0x8"]), (FORGOTTEN, REVERTED, ["0x9", "0x8"])],
)
def test_failure__call_reverts_again__has_the_custom_error_with_its_arguments(
    at: dict[str, Any], before: dict[str, Any], blocks: list[str]
) -> None:
    error, asked = found(at, before)
    assert (error.name, error.values, error.names) == ("FLBTooEarly", (9,), ("earliest",))
    assert "FLBTooEarly(earliest=9)" in str(error) and "0x" + TX.hex() in str(error)
    assert asked == blocks


@pytest.mark.parametrize("at", [PASSES, FORGOTTEN, POOR, BARE])
def test_failure__nothing_to_be_had__names_the_transaction(at: dict[str, Any]) -> None:
    error, _ = found(at, PASSES)
    assert (error.name, error.values) == ("revert", (TX,))
    assert f"revert(tx=0x{TX.hex()})" in str(error)
