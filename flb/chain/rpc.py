# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC to one endpoint. A dead endpoint is ChainUnavailable, a revert is ContractRefused; nothing foreign passes."""

import re
from dataclasses import dataclass, field
from typing import Any

import requests
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from web3 import HTTPProvider
from web3.exceptions import Web3Exception

from flb.chain import abi
from flb.errors import ChainUnavailable, ContractRefused, LostChain

TIMEOUT_SECONDS = 30


@dataclass(slots=True)
class Rpc:
    """One endpoint, for example http://127.0.0.1:8545."""

    url: str
    provider: HTTPProvider = field(init=False)

    def __post_init__(self) -> None:
        # Retries are the caller's: it knows what else to do while the chain is away.
        self.provider = HTTPProvider(
            self.url, request_kwargs={"timeout": TIMEOUT_SECONDS}, exception_retry_configuration=None
        )

    def call(self, method: str, *params: Any) -> Any:
        """One request. Raises ChainUnavailable, or ContractRefused for a revert."""
        try:
            answer = self.provider.make_request(method, list(params))
        except (OSError, requests.RequestException, Web3Exception, ValueError) as error:
            raise ChainUnavailable(
                f"the chain at {self.url} does not answer", "start it, or correct chain.rpc"
            ) from error
        fault = answer.get("error") if isinstance(answer, dict) else None
        if fault:
            raise _fault(self.url, fault)
        if not isinstance(answer, dict) or "result" not in answer:
            raise ChainUnavailable(f"what answers at {self.url} is no chain", "correct chain.rpc")
        return answer["result"]

    def chain_id(self) -> int:
        """The chain's id."""
        return int(self.call("eth_chainId"), 16)

    def block_number(self) -> int:
        """Number of the newest block."""
        return int(self.call("eth_blockNumber"), 16)

    def block(self, number: int) -> Any:
        """A block's header by number, None where there is none."""
        return self.call("eth_getBlockByNumber", hex(number), False)


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


def lost(url: str, run: bytes) -> LostChain:
    """The sentence for a chain that does not hold the run."""
    return LostChain(
        f"the chain at {url} answers, but the run 0x{run.hex()} is not on it",
        "a local chain that was restarted is empty and its run is over: start a new one, or correct chain.rpc and "
        "chain.run",
    )
