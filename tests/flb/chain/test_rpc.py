# SPDX-License-Identifier: Apache-2.0
"""What an endpoint answers becomes a result, ContractRefused or ChainUnavailable, and nothing else."""

import socket
from typing import Any

import pytest
from eth_abi.abi import encode

from flb.chain.rpc import Rpc, _fault
from flb.errors import ChainUnavailable, ContractRefused
from flb.merkle import keccak256
from tests.chains import serving

TOO_EARLY = "0x" + (keccak256(b"FLBTooEarly(uint40)")[:4] + encode(["uint40"], [9])).hex()

REFUSED = {
    "geth, custom error": ({"code": 3, "message": "execution reverted", "data": TOO_EARLY}, "FLBTooEarly"),
    "hardhat, custom error": ({"code": 3, "message": "reverted with ...", "data": {"data": TOO_EARLY}}, "FLBTooEarly"),
    "no data": ({"code": 3, "message": "execution reverted"}, "revert"),
    "odd data": ({"code": 3, "message": "execution reverted", "data": "0x12345678a"}, "revert"),
    "geth, coins": ({"code": -32000, "message": "insufficient funds for gas * price + value"}, "InsufficientFunds"),
    "geth, nonce": ({"code": -32000, "message": "nonce too low: next nonce 5, tx nonce 4"}, "NonceUsed"),
    "geth, pooled": ({"code": -32000, "message": "already known"}, "AlreadyKnown"),
    "hardhat, pooled": ({"code": -32000, "message": "Known transaction: 0x12"}, "AlreadyKnown"),
}


@pytest.mark.unit
@pytest.mark.parametrize(("error", "name"), REFUSED.values(), ids=REFUSED)
def test_fault__refusal__has_the_name_of_its_reason(error: Any, name: str) -> None:
    found = _fault("http://chain", error)
    assert isinstance(found, ContractRefused)
    assert found.name == name


@pytest.mark.unit
@pytest.mark.parametrize("error", [{"code": -32005, "message": "too many requests"}, "busy", {}, ["odd"], 5])
def test_fault__any_other_error__is_chain_unavailable(error: Any) -> None:
    assert isinstance(_fault("http://chain", error), ChainUnavailable)


ANSWERS = {
    "result": (b'{"jsonrpc": "2.0", "id": 1, "result": "0x7a69"}', 31337),
    "empty error": (b'{"jsonrpc": "2.0", "id": 1, "error": null, "result": "0x7a69"}', 31337),
    "error": (b'{"jsonrpc": "2.0", "id": 1, "error": {"code": -32005, "message": "limit"}}', "answers with an error"),
    "no result": (b'{"jsonrpc": "2.0", "id": 1}', "is no chain"),
    "list": (b"[]", "is no chain"),
    "number": (b"5", "is no chain"),
    "page": (b"<html>", "does not answer"),
    "bytes": (b"\xff\xfe\x00", "does not answer"),
    "nothing": (b"", "does not answer"),
}


@pytest.mark.e2e
@pytest.mark.parametrize(("body", "expected"), ANSWERS.values(), ids=ANSWERS)
def test_call__each_kind_of_answer__is_a_result_or_chain_unavailable(body: bytes, expected: int | str) -> None:
    with serving(lambda _: body) as url:
        if isinstance(expected, int):
            assert Rpc(url).chain_id() == expected
        else:
            with pytest.raises(ChainUnavailable, match=expected):
                Rpc(url).chain_id()


@pytest.mark.e2e
def test_call__cut_connection__is_chain_unavailable_after_one_try() -> None:
    asked: list[Any] = []
    with serving(lambda request: asked.append(request)) as url, pytest.raises(ChainUnavailable):
        Rpc(url).chain_id()
    assert len(asked) == 1


@pytest.mark.e2e
def test_call__nobody_listens__is_chain_unavailable_with_the_setting_to_look_at() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ChainUnavailable, match="does not answer: start it, or correct chain.rpc"):
            Rpc(url).chain_id()


@pytest.mark.unit
@pytest.mark.parametrize("url", ["localhost:8545", "", "ftp://127.0.0.1", "http://"])
def test_call__no_web_address__is_chain_unavailable(url: str) -> None:
    with pytest.raises(ChainUnavailable):
        Rpc(url).chain_id()
