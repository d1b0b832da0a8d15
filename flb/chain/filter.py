# SPDX-License-Identifier: Apache-2.0
"""A JSON-RPC filter in front of a local chain, for a trial between machines of a private network.

The local chain holds funded accounts and obeys whoever reaches it. Through the filter passes what any public endpoint
offers: reads of the standard, and transactions that the sender signed. Everything else is refused by name, whatever
the node behind would say to it. Source: https://ethereum.github.io/execution-apis, JSON-RPC 2.0.
"""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import BoundedSemaphore, Thread
from typing import Any

from flb.errors import ConfigError, PortTaken

PASSES = frozenset({
    "eth_blockNumber", "eth_call", "eth_chainId", "eth_estimateGas", "eth_feeHistory", "eth_gasPrice",
    "eth_getBalance", "eth_getBlockByHash", "eth_getBlockByNumber", "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash", "eth_getBlockTransactionCountByNumber", "eth_getCode", "eth_getLogs",
    "eth_getProof", "eth_getStorageAt", "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex", "eth_getTransactionByHash", "eth_getTransactionCount",
    "eth_getTransactionReceipt", "eth_maxPriorityFeePerGas", "eth_syncing",
    "eth_sendRawTransaction", "net_version", "web3_clientVersion",
})  # fmt: skip
"""Every method that passes; a new one of the node's is refused until it stands here."""
BODY_BYTES = 1 << 20
"""The largest request; a contract's deployment takes a twentieth of it."""
BATCH_ITEMS = 100
CALLS_AT_ONCE = 32
CALL_SECONDS = 30.0
PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INTERNAL_ERROR = -32700, -32600, -32601, -32603


def fault(number: int, message: str, ident: Any = None) -> dict[str, Any]:
    """An error in JSON-RPC's form."""
    return {"jsonrpc": "2.0", "id": ident, "error": {"code": number, "message": message}}


def refusal(request: Any) -> dict[str, Any] | None:
    """Why one request does not pass; None if it does."""
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return fault(INVALID_REQUEST, "a request is an object with a method")
    ident = request.get("id")
    if isinstance(ident, bool) or not isinstance(ident, str | int | float | None):
        return fault(INVALID_REQUEST, "an id is a text or a number")
    if request["method"] not in PASSES:
        return fault(METHOD_NOT_FOUND, f"the method {request['method'][:60]} does not pass the filter", ident)
    return None


def answer(body: bytes, upstream: str) -> bytes:
    """The answer to a request's body: the chain's where every item passes, else the refusals and the chain's others.

    What was checked is written anew for the chain, so both read the same, however odd the original was.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return json.dumps(fault(PARSE_ERROR, "the request is not JSON")).encode()
    if not isinstance(request, list):
        refused = refusal(request)
        return json.dumps(refused).encode() if refused else forward(request, upstream)
    if not 0 < len(request) <= BATCH_ITEMS:
        return json.dumps(fault(INVALID_REQUEST, f"a batch holds 1 to {BATCH_ITEMS} requests")).encode()
    answers = [json.loads(forward(item, upstream)) if (refused := refusal(item)) is None else refused
               for item in request]  # fmt: skip
    return json.dumps(answers).encode()


def forward(request: dict[str, Any], upstream: str) -> bytes:
    """The chain's own answer to one request that passed."""
    clean = {"jsonrpc": "2.0", "id": request.get("id"), "method": request["method"],
             "params": request.get("params", [])}  # fmt: skip
    call = urllib.request.Request(upstream, json.dumps(clean).encode(), {"Content-Type": "application/json"})  # noqa: S310
    try:
        with OPENER.open(call, timeout=CALL_SECONDS) as response:
            said: bytes = response.read()
    except urllib.error.HTTPError as error:
        with error:
            said = error.read()
    except OSError:
        return json.dumps(fault(INTERNAL_ERROR, "the chain behind the filter does not answer", clean["id"])).encode()
    try:
        json.loads(said)
    except ValueError:
        return json.dumps(fault(INTERNAL_ERROR, "the chain's answer is not JSON", clean["id"])).encode()
    return said


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Without the user's proxies: the chain is on this machine."""


class Handler(BaseHTTPRequestHandler):
    """One connection; several requests may follow each other on it."""

    protocol_version = "HTTP/1.1"
    timeout = CALL_SECONDS
    server: "Filter"

    def do_POST(self) -> None:
        """Check, pass on, answer."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            self.say(411, json.dumps(fault(INVALID_REQUEST, "a request states its length")).encode(), close=True)
        elif len(length) > 9 or int(length) > BODY_BYTES:
            said = json.dumps(fault(INVALID_REQUEST, f"a request has at most {BODY_BYTES} bytes")).encode()
            self.say(413, said, close=True)
        else:
            body = self.rfile.read(int(length))
            with self.server.calls:
                said = answer(body, self.server.upstream)
            self.say(200, said)

    def say(self, status: int, body: bytes, close: bool = False) -> None:
        """Answer; after a body that was not read the connection cannot go on."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the chain has a log."""


class Filter(ThreadingHTTPServer):
    """The listening side."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, listen: str, upstream: str) -> None:
        """Bind HOST:PORT. Raises ConfigError or PortTaken."""
        host, colon, port = listen.rpartition(":")
        if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ConfigError(f"--listen is {listen!r}", "give ADDRESS:PORT, for example 192.168.1.10:8600")
        self.upstream = upstream
        self.calls = BoundedSemaphore(CALLS_AT_ONCE)
        self.address_family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        try:
            super().__init__((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise PortTaken(
                f"{listen} cannot be bound ({error.strerror or error})",
                "give an address of this machine and a port that is free, another than --port",
            ) from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke concerns its caller alone."""


@contextmanager
def running(listen: str, upstream: str) -> Iterator[str]:
    """A filter for the length of a block of code; gives its URL. Raises ConfigError or PortTaken."""
    with Filter(listen, upstream) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        thread.start()
        try:
            yield f"http://{listen.rpartition(':')[0]}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
