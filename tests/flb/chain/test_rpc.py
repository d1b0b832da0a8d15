# SPDX-License-Identifier: Apache-2.0
"""What an endpoint answers becomes a result, ContractRefused or ChainUnavailable, and nothing else."""

import json
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from eth_abi.abi import encode

from flb.chain import local, membership_calls
from flb.chain.deploy import Settings, create_run
from flb.chain.refusal import fault
from flb.chain.registry import Registry, call_view, find_deploy_block
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.errors import ChainUnavailable, ContractRefused, FLBError, LostChain, Refused
from flb.merkle import keccak256
from flb.types import ZERO_DIGEST, Address, Domain
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
    found = fault("http://chain", error)
    assert isinstance(found, ContractRefused)
    assert found.name == name


@pytest.mark.unit
@pytest.mark.parametrize("error", [{"code": -32005, "message": "too many requests"}, "busy", {}, ["odd"], 5])
def test_fault__any_other_error__is_chain_unavailable(error: Any) -> None:
    assert isinstance(fault("http://chain", error), ChainUnavailable)


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


@contextmanager
def resetting(answers: Sequence[bool]) -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """An endpoint that keeps connections open. Its n-th request is answered, or reset where `answers` has False; beyond
    that all are answered. With it, (connection, method) of each request."""
    asked: list[tuple[int, str]] = []
    count = iter(range(100))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            connection = next(count)
            while headers := list(iter(self.rfile.readline, b"\r\n")):
                if headers == [b""] or b"" in headers:
                    return
                size = next(int(line.split(b":")[1]) for line in headers if line.lower().startswith(b"content-length"))
                asked.append((connection, json.loads(self.rfile.read(size))["method"]))
                if not (answers[len(asked) - 1] if len(asked) <= len(answers) else True):
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return  # closing sends a reset
                body = b'{"jsonrpc": "2.0", "id": 1, "result": "0x5"}'
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.e2e
def test_call__kept_connection_is_reset__a_read_is_sent_once_more_on_a_new_one() -> None:
    with resetting([True, False]) as (url, asked):
        rpc = Rpc(url)
        assert [rpc.block_number(), rpc.block_number()] == [5, 5]
        rpc.session.close()  # ends the thread that serves it
    assert asked == [(0, "eth_blockNumber"), (0, "eth_blockNumber"), (1, "eth_blockNumber")]


@pytest.mark.e2e
def test_call__reset_again__is_chain_unavailable() -> None:
    with resetting([True, False, False]) as (url, asked):
        rpc = Rpc(url)
        rpc.block_number()
        with pytest.raises(ChainUnavailable):
            rpc.block_number()
    assert len(asked) == 3


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["eth_sendRawTransaction", "eth_sendTransaction", "evm_mine"])
def test_call__what_changes_the_chain_is_reset__is_not_repeated(method: str) -> None:
    with resetting([True, False]) as (url, asked):
        rpc = Rpc(url)
        rpc.block_number()
        with pytest.raises(ChainUnavailable):
            rpc.call(method, "0x00")
    assert len(asked) == 2


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


RUN = Address(b"\x11" * 20)
WORD = "0x" + "22" * 32
GOOD: dict[str, Any] = {
    "eth_chainId": "0x7a69",
    "eth_blockNumber": "0x5",
    "eth_getCode": "0x60",
    "eth_getBlockByNumber": {"number": "0x5", "hash": WORD, "baseFeePerGas": "0x1", "timestamp": "0x1"},
    "eth_getLogs": [],
    "eth_estimateGas": "0x5208",
    "eth_maxPriorityFeePerGas": "0x3b9aca00",
    "eth_getTransactionCount": "0x0",
    "eth_sendRawTransaction": WORD,
    "eth_getTransactionReceipt": {
        "status": "0x1", "blockNumber": "0x1", "blockHash": WORD, "gasUsed": "0x1", "contractAddress": "0x" + "33" * 20,
        "logs": [{"topics": ["0x" + keccak256(b"RunCreated(address,address,bytes32)").hex(), "0x" + "00" * 12 + "44" * 20]}],
    },
    "eth_accounts": ["0x" + "33" * 20],
    "eth_sendTransaction": WORD,
    "eth_call": "0x" + "00" * 32,
}  # fmt: skip
SETTINGS = Settings(ZERO_DIGEST, ZERO_DIGEST, 1, 1, 1, RUN, RUN, RUN)
USES: dict[str, Callable[[Rpc], object]] = {
    "poll": lambda rpc: Registry(rpc, Domain(31337, RUN), 0).poll(),
    "find_deploy_block": lambda rpc: find_deploy_block(rpc, RUN),
    "call_view": lambda rpc: call_view(rpc, RUN, "spec"),
    "join": lambda rpc: membership_calls.join(Sender(rpc, b"\x01" * 32, RUN), RUN),
    "create_run": lambda rpc: create_run(Sender(rpc, b"\x01" * 32), RUN, SETTINGS),
    "fund": lambda rpc: local.fund(rpc, RUN),
}


READ = {
    "poll": {"eth_chainId", "eth_blockNumber", "eth_getCode", "eth_getBlockByNumber", "eth_getLogs"},
    "find_deploy_block": {"eth_blockNumber", "eth_getCode"},
    "call_view": {"eth_call"},
    "join": {"eth_estimateGas", "eth_getBlockByNumber", "eth_getTransactionCount", "eth_chainId", "eth_blockNumber",
             "eth_getTransactionReceipt"},
    "create_run": {"eth_getCode", "eth_estimateGas", "eth_getBlockByNumber", "eth_getTransactionCount", "eth_chainId",
                   "eth_blockNumber", "eth_getTransactionReceipt"},
    "fund": {"eth_chainId", "eth_accounts"},
}  # fmt: skip
"""The methods whose answers a use reads."""
ODD_LOGS: tuple[Any, ...] = (5, {}, {"topics": [5]}, {"topics": ["0x12"]},
    {"topics": GOOD["eth_getTransactionReceipt"]["logs"][0]["topics"][:1]})  # fmt: skip


def spoken(answers: dict[str, Any], asked: set[str] | None = None) -> Callable[[Any], bytes]:
    """An endpoint that answers each method with what the table says now, and writes down what it was asked."""

    def answer(request: Any) -> bytes:
        if asked is not None:
            asked.add(request["method"])
        return json.dumps({"jsonrpc": "2.0", "id": 1, "result": answers[request["method"]]}).encode()

    return answer


@pytest.mark.e2e
@pytest.mark.parametrize("use", USES)
def test_call__malformed_result_of_any_method__is_an_error_of_ours(use: str) -> None:
    """A hosted endpoint answers null when it lags; nothing it says may end a daemon with a traceback."""
    answers, asked, refused = dict(GOOD), set[str](), set[str]()
    with serving(spoken(answers, asked)) as url:
        rpc = Rpc(url)
        USES[use](rpc)  # with good answers nothing is refused
        for method in sorted(asked):
            partial = [{**GOOD[method], key: None} for key in GOOD[method]] if isinstance(GOOD[method], dict) else []
            partial += [{**GOOD[method], "logs": [log]} for log in ODD_LOGS] if "Receipt" in method else []
            for bad in (None, [], {}, "zz", 5, "0x", [None], *partial):
                if method == "eth_getTransactionReceipt" and bad is None:
                    continue  # not mined yet: it would be waited for
                answers[method] = bad
                try:
                    USES[use](rpc)
                except FLBError:
                    refused.add(method)
            answers[method] = GOOD[method]
    assert refused == READ[use]


@pytest.mark.e2e
def test_send__chain_without_base_fee__is_refused_for_good() -> None:
    with (
        serving(spoken({**GOOD, "eth_getBlockByNumber": {"number": "0x5", "hash": WORD, "timestamp": "0x1"}})) as url,
        pytest.raises(Refused, match="use a chain with EIP-1559 fees"),
    ):
        USES["join"](Rpc(url))


@pytest.mark.e2e
def test_call_view__nothing_at_the_address__is_a_lost_chain() -> None:
    with serving(spoken({**GOOD, "eth_call": "0x"})) as url, pytest.raises(LostChain):
        USES["call_view"](Rpc(url))


@pytest.mark.e2e
@pytest.mark.parametrize("accounts", [[], None])
def test_fund__chain_that_holds_no_accounts__is_refused(accounts: Any) -> None:
    with serving(spoken({**GOOD, "eth_accounts": accounts})) as url, pytest.raises(Refused, match="flb chain up"):
        USES["fund"](Rpc(url))


@pytest.mark.e2e
def test_call__proxy_of_the_user__is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with serving(spoken(GOOD)) as url:
        assert Rpc(url).chain_id() == 31337
        assert Rpc(url.replace("127.0.0.1", "localhost")).chain_id() == 31337


@pytest.mark.e2e
def test_call__proxy_of_the_user__is_asked_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(request: Any) -> bytes:
        asked.append(request["method"])
        return spoken(GOOD)(request)

    with serving(answer) as url:
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, url)
        assert Rpc("http://chain.invalid:8545").chain_id() == 31337
        monkeypatch.setenv("NO_PROXY", "chain.invalid")
        monkeypatch.setenv("no_proxy", "chain.invalid")
        with pytest.raises(ChainUnavailable):
            Rpc("http://chain.invalid:8545").chain_id()
    assert asked == ["eth_chainId"]
