# SPDX-License-Identifier: Apache-2.0
"""The filter on a real port, in front of a real port that remembers what reached it."""

import http.client
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from flb.chain import filter as rpc_filter
from flb.chain.local import free_port
from flb.errors import ConfigError, PortTaken
from tests.chains import serving

pytestmark = pytest.mark.e2e

NEVER = [
    "hardhat_setBalance", "hardhat_impersonateAccount", "evm_mine", "evm_revert", "debug_traceTransaction",
    "eth_sendTransaction", "eth_accounts", "eth_sign", "eth_signTransaction", "eth_signTypedData_v4",
    "personal_unlockAccount", "eth_newFilter", "eth_subscribe", "web3_sha3", "net_listening", "txpool_content",
    "ETH_CALL", "eth_call ", " eth_call", "eth_call\u0000", "", "rpc_modules",
]  # fmt: skip


@dataclass
class Front:
    """A filter and what reached the chain behind it."""

    url: str
    reached: list[Any] = field(default_factory=list)

    def post(self, body: Any) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = requests.post(self.url, data=data, timeout=10, proxies={"no_proxy": "127.0.0.1"})
        assert response.status_code == 200
        return response.json()


@pytest.fixture
def front() -> Iterator[Front]:
    made = Front("")

    def answer(request: Any) -> bytes:
        made.reached.append(request)
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": request["method"]}).encode()

    with serving(answer) as upstream, rpc_filter.running(f"127.0.0.1:{free_port()}", upstream) as url:
        made.url = url
        yield made


def call(method: Any, ident: Any = 1, **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": ident, "method": method, "params": [], **more}


@pytest.mark.parametrize("method", sorted(rpc_filter.PASSES))
def test_post__read_or_signed_transaction__passes(front: Front, method: str) -> None:
    assert method.startswith(("eth_get", "eth_", "net_version", "web3_clientVersion"))
    assert front.post(call(method)) == {"jsonrpc": "2.0", "id": 1, "result": method}
    assert [request["method"] for request in front.reached] == [method]


@pytest.mark.parametrize("method", NEVER)
def test_post__anything_else__is_refused_by_name_and_reaches_nobody(front: Front, method: str) -> None:
    said = front.post(call(method, "seven"))
    assert said["id"] == "seven" and said["error"]["code"] == -32601 and method in said["error"]["message"]
    assert front.reached == []


def test_post__batch__is_checked_item_by_item(front: Front) -> None:
    said = front.post([call("eth_chainId", 1), call("evm_mine", 2), 7, call("eth_blockNumber", 3)])
    assert [item.get("id") for item in said] == [1, 2, None, 3]
    assert ["error" in item for item in said] == [False, True, True, False]
    assert [request["method"] for request in front.reached] == ["eth_chainId", "eth_blockNumber"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b"null", -32600),
        (b'"eth_call"', -32600),
        (b"[]", -32600),
        (b'{"method": ["eth_call"]}', -32600),
        (b'{"method": "eth_call", "id": {"a": 1}}', -32600),
        (b'{"method": "eth_call", "id": true}', -32600),
        (json.dumps([call("eth_call")] * 101).encode(), -32600),
    ],
)
def test_post__malformed__is_an_error_in_json_rpc_form(front: Front, body: bytes, code: int) -> None:
    assert front.post(body)["error"]["code"] == code
    assert front.reached == []


def test_post__same_key_twice__sends_on_what_was_checked(front: Front) -> None:
    said = front.post(b'{"id": 1, "method": "evm_mine", "method": "eth_call", "extra": 1}')
    assert said["result"] == "eth_call"
    assert front.reached == [{"jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": []}]
    assert "error" in front.post(b'{"id": 1, "method": "eth_call", "method": "evm_mine"}')
    assert len(front.reached) == 1


@pytest.mark.parametrize("length", [str(rpc_filter.BODY_BYTES + 1), "9" * 30, "-1", "0x10", None])
def test_post__too_long_or_of_no_length__is_refused_unread(front: Front, length: str | None) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(front.url).port or 0, timeout=10)
    connection.putrequest("POST", "/")
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    response = connection.getresponse()
    assert response.status in (411, 413) and json.loads(response.read())["error"]["code"] == -32600
    assert response.headers["Connection"] == "close" and front.reached == []
    connection.close()


def test_get__nothing__is_refused(front: Front) -> None:
    assert requests.get(front.url, timeout=10, proxies={"no_proxy": "127.0.0.1"}).status_code == 501


def test_post__chain_away__is_an_error_with_the_callers_id() -> None:
    with rpc_filter.running(f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}") as url:
        said = Front(url).post(call("eth_call", 9))
    assert (said["id"], said["error"]["code"]) == (9, -32603) and "does not answer" in said["error"]["message"]


@pytest.mark.parametrize("listen", ["8545", ":8545", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536"])
def test_running__no_address__is_one_sentence(listen: str) -> None:
    with pytest.raises(ConfigError, match="give ADDRESS:PORT"), rpc_filter.running(listen, "http://127.0.0.1:1"):
        pass


def test_running__port_taken_or_address_of_another__is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for listen in (f"127.0.0.1:{taken.getsockname()[1]}", "192.0.2.1:8545"):
            with pytest.raises(PortTaken, match="cannot be bound"), rpc_filter.running(listen, "http://127.0.0.1:1"):
                pass
