# SPDX-License-Identifier: Apache-2.0
"""What transactions cost, from an endpoint's receipts and the file that keeps them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flb.chain.gas import Spent, spent
from flb.chain.rpc import Rpc
from flb.errors import ChainUnavailable
from flb.events import Place
from flb.types import Address, Block, Digest
from tests.chains import serving

pytestmark = pytest.mark.e2e

PAYER = Address(b"\x0a" * 20)
HERE, ELSEWHERE = Digest(b"\xb1" * 32), Digest(b"\xb2" * 32)
PLACE = Place(Block(7, HERE), 0, Digest(b"\x77" * 32))


def receipt(block: Digest) -> dict[str, str]:
    return {"from": "0x" + PAYER.hex(), "gasUsed": "0x5", "effectiveGasPrice": "0x3", "blockHash": "0x" + block.hex()}


def answering(result: Any) -> Callable[[Any], bytes]:
    """An endpoint with this receipt for every transaction, alone or in a batch."""

    def answer(request: Any) -> bytes:
        if isinstance(request, list):
            return json.dumps([{"id": one["id"], "result": result} for one in request]).encode()
        return json.dumps({"id": 1, "result": result}).encode()

    return answer


def test_spent__transaction_of_two_events__counts_once_and_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "gas.json"
    with serving(answering(receipt(HERE))) as url:
        assert spent(Rpc(url), [PLACE, PLACE], cache) == [Spent(PAYER, 5, 15)]
    assert spent(Rpc("http://127.0.0.1:1"), [PLACE], cache) == [Spent(PAYER, 5, 15)], "nobody is asked again"


def test_spent__endpoint_without_the_receipt__is_named_with_the_transaction() -> None:
    with (
        serving(answering(None)) as url,
        pytest.raises(ChainUnavailable, match=f"{url} has no receipt of 0x{PLACE.tx.hex()}"),
    ):
        spent(Rpc(url), [PLACE])


def test_spent__receipt_from_another_block__is_a_reorg() -> None:
    with serving(answering(receipt(ELSEWHERE))) as url, pytest.raises(ChainUnavailable, match="was reordered"):
        spent(Rpc(url), [PLACE])
