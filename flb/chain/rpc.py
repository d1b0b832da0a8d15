# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC to one endpoint. A dead endpoint is ChainUnavailable, a revert is ContractRefused; nothing foreign passes."""

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from flb.chain import abi
from flb.chain.events import digest
from flb.errors import ChainUnavailable, ContractRefused, LostChain
from flb.types import Block

TIMEOUT_SECONDS = 30
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, DecodingError)
"""What reading an answer of another form than the standard's raises."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a block. `base_fee` is in wei a gas, None on a chain without EIP-1559."""

    block: Block
    base_fee: int | None


@dataclass(slots=True)
class Rpc:
    """One endpoint, for example http://127.0.0.1:8545."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)
    """Keeps connections open; its pool serves all threads. Retries are the caller's, who knows what else to do."""

    def __post_init__(self) -> None:
        try:
            host = urlsplit(self.url).hostname
        except ValueError:
            host = None  # no address at all; the first call says so
        # the user's HTTP_PROXY knows nothing about this machine's own ports
        self.session.trust_env = host not in LOOPBACK

    def call(self, method: str, *params: Any) -> Any:
        """One request. Raises ChainUnavailable, or ContractRefused for a revert."""
        try:
            answer = self.request(method, *params)
        except (OSError, requests.RequestException, ValueError) as error:
            raise ChainUnavailable(
                f"the chain at {self.url} does not answer", "start it, or correct chain.rpc"
            ) from error
        fault = answer.get("error") if isinstance(answer, dict) else None
        if fault:
            raise _fault(self.url, fault)
        if not isinstance(answer, dict) or "result" not in answer:
            raise ChainUnavailable(f"what answers at {self.url} is no chain", "correct chain.rpc")
        return answer["result"]

    def request(self, method: str, *params: Any) -> Any:
        """The whole answer, an error of the node's included. Raises what requests raises, and ValueError for no JSON."""
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        response = self.session.post(self.url, json=body, timeout=TIMEOUT_SECONDS)
        if not response.ok and "json" not in response.headers.get("content-type", ""):
            response.raise_for_status()
        return response.json()

    def quantity(self, method: str, *params: Any) -> int:
        """One request whose answer is a number. Raises as `call` does."""
        answer = self.call(method, *params)
        try:
            return int(answer, 16)
        except MALFORMED as error:
            raise malformed(self.url, method) from error

    def data(self, method: str, *params: Any) -> bytes:
        """One request whose answer is a string of bytes. Raises as `call` does."""
        answer = self.call(method, *params)
        try:
            return bytes.fromhex(answer.removeprefix("0x"))
        except MALFORMED as error:
            raise malformed(self.url, method) from error

    def chain_id(self) -> int:
        """The chain's id."""
        return self.quantity("eth_chainId")

    def block_number(self) -> int:
        """Number of the newest block."""
        return self.quantity("eth_blockNumber")

    def block(self, number: int | None) -> Header | None:
        """A block's header by number, or the newest one for None; None where there is none."""
        tag = "latest" if number is None else hex(number)
        answer = self.call("eth_getBlockByNumber", tag, False)
        if answer is None:
            return None
        try:
            fee = answer.get("baseFeePerGas")
            block = Block(int(answer["number"], 16), digest(answer["hash"]))
            return Header(block, None if fee is None else int(fee, 16))
        except MALFORMED as error:
            raise malformed(self.url, "eth_getBlockByNumber") from error


def _fault(url: str, error: Any) -> Exception:
    message = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict):
        data = data.get("data")
    if isinstance(data, str) and re.fullmatch("0x([0-9a-fA-F]{2}){4,}", data):
        return refusal(bytes.fromhex(data[2:]))
    if "revert" in message:
        return ContractRefused("revert")
    if "insufficient funds" in message or "doesn't have enough funds" in message:
        return ContractRefused("InsufficientFunds", (), "fund the account: flb account fund ADDRESS on a local chain")
    if "already known" in message.lower() or "known transaction" in message.lower():
        return ContractRefused("AlreadyKnown", (), "the chain has this transaction; wait for it")
    if "nonce" in message.lower():
        return ContractRefused("NonceUsed", (), "another process sends from this account; give each its own")
    return ChainUnavailable(f"the chain at {url} answers with an error ({message.strip()})", "look at its log")


def refusal(data: bytes) -> ContractRefused:
    """A revert's data, decoded with the contracts' own errors."""
    for name in ("FLBRun", "FLBFactory"):
        item = abi.load(name).errors.get(data[:4])
        if item is not None:
            try:
                return ContractRefused(item.name, tuple(decode(item.inputs, data[4:])))
            except DecodingError:
                break
    return ContractRefused("revert", (data,))


def malformed(url: str, method: str) -> ChainUnavailable:
    """The error for an answer of another form than the standard's."""
    return ChainUnavailable(f"the answer of {url} to {method} is malformed", "use another RPC endpoint")


def lost(url: str, run: bytes) -> LostChain:
    """The sentence for a chain that does not hold the run."""
    return LostChain(
        f"the chain at {url} answers, but the run 0x{run.hex()} is not on it",
        "a local chain that was restarted is empty and its run is over: start a new one, or correct chain.rpc and "
        "chain.run",
    )
