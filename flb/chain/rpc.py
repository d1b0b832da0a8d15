# SPDX-License-Identifier: Apache-2.0
"""JSON-RPC to one endpoint. A dead endpoint is ChainUnavailable, a revert is ContractRefused; nothing foreign passes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from eth_abi.exceptions import DecodingError

from flb.chain.events import digest
from flb.chain.refusal import fault
from flb.errors import ChainUnavailable, ContractRefused, LostChain
from flb.types import Block, Seconds

TIMEOUT_SECONDS = 30
BATCH_ITEMS = 100
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MALFORMED = (KeyError, IndexError, TypeError, ValueError, AttributeError, DecodingError)
"""What reading an answer of another form than the standard's raises."""


@dataclass(frozen=True, slots=True)
class Header:
    """What is read of a block. `base_fee` is in wei a gas, None on a chain without EIP-1559; `time` in Unix seconds."""

    block: Block
    base_fee: int | None
    time: Seconds


@dataclass(slots=True)
class Rpc:
    """One chain, behind one endpoint or several, for example http://127.0.0.1:8545.

    Of several, one is asked until it fails; the next one then has to be on the same chain and as far as what was seen.
    """

    url: str
    """The endpoint in use."""
    others: tuple[str, ...] = ()
    """Asked in this order when `url` fails."""
    session: requests.Session = field(default_factory=requests.Session)
    """Keeps connections open; its pool serves all threads. Retries are the caller's, who knows what else to do."""
    seen: int = -1
    """The highest block that any endpoint named."""
    fixed: int | None = None
    """The chain's id, once it was asked for."""
    answered: set[str] = field(default_factory=set)
    """Endpoints that answered: a connection to them may be kept open, and be cut while nobody uses it."""

    def __post_init__(self) -> None:
        self.session.trust_env = bool(self.others) or not is_local(self.url)

    def call(self, method: str, *params: Any) -> Any:
        """One request. Raises ChainUnavailable, or ContractRefused for a revert."""
        try:
            return self.ask(self.url, method, *params)
        except ChainUnavailable:
            for url in self.others:
                if self.fit(url):
                    try:
                        result = self.ask(url, method, *params)
                    except ChainUnavailable:
                        continue
                    self.use(url)
                    return result
            raise

    def ask(self, url: str, method: str, *params: Any) -> Any:
        """One request to one endpoint. Raises as `call` does."""
        try:
            answer = self.request(method, *params, url=url)
        except (OSError, requests.RequestException, ValueError) as error:
            raise ChainUnavailable(f"the chain at {url} does not answer", "start it, or correct chain.rpc") from error
        failed = answer.get("error") if isinstance(answer, dict) else None
        if failed:
            raise fault(url, failed)
        if not isinstance(answer, dict) or "result" not in answer:
            raise ChainUnavailable(f"what answers at {url} is no chain", "correct chain.rpc")
        return answer["result"]

    def request(self, method: str, *params: Any, url: str | None = None) -> Any:
        """The whole answer, an error of the node's included. Raises what requests raises, and ValueError for no JSON."""
        return self.post({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}, url)

    def post(self, body: Any, url: str | None = None) -> Any:
        """Any JSON-RPC body to one endpoint. Raises as `request` does.

        A read that is reset is sent once more, on a new connection, where the endpoint answered before: what was reset
        is then most likely a kept connection, and says nothing about the endpoint.
        """
        where = url or self.url
        try:
            response = self.send(self.session, where, body)
        except requests.ConnectionError as error:
            if where not in self.answered or not only_reads(body) or not was_reset(error):
                raise
            with requests.Session() as fresh:  # the pool may hold more connections that are cut
                fresh.trust_env = self.session.trust_env
                response = self.send(fresh, where, body)
        self.answered.add(where)
        if not response.ok and "json" not in response.headers.get("content-type", ""):
            response.raise_for_status()
        return response.json()

    def send(self, session: requests.Session, where: str, body: Any) -> requests.Response:
        """One POST, whatever its answer. Raises what requests raises."""
        # the user's HTTP_PROXY knows nothing about this machine's own ports
        through = {"http": "", "https": ""} if self.others and is_local(where) else None
        return session.post(where, json=body, timeout=TIMEOUT_SECONDS, proxies=through)

    def fit(self, url: str) -> bool:
        """Whether an endpoint answers, is on this chain, and has what was seen."""
        try:
            if self.fixed is not None and int(self.ask(url, "eth_chainId"), 16) != self.fixed:
                return False
            return self.height(url) >= self.seen
        except (ChainUnavailable, ContractRefused, *MALFORMED):
            return False

    def use(self, url: str) -> None:
        """Ask this endpoint from now on, and the one that was used after all others."""
        self.others = (*(other for other in self.others if other != url), self.url)
        self.url = url

    def height(self, url: str) -> int:
        """Number of the newest block of an endpoint. Raises as `call` does."""
        try:
            return int(self.ask(url, "eth_blockNumber"), 16)
        except MALFORMED as error:
            raise malformed(url, "eth_blockNumber") from error

    def batch(self, method: str, items: Sequence[str]) -> list[Any]:
        """The results of one method for many single parameters, in their order; one by one where batches are refused.

        Raises as `call` does.
        """
        results: list[Any] = []
        for start in range(0, len(items), BATCH_ITEMS):
            part = items[start : start + BATCH_ITEMS]
            body = [{"jsonrpc": "2.0", "id": i, "method": method, "params": [item]} for i, item in enumerate(part)]
            try:
                found = {answer["id"]: answer["result"] for answer in self.post(body)}
                results += [found[index] for index in range(len(part))]
            except (OSError, requests.RequestException, *MALFORMED):
                results += [self.call(method, item) for item in part]
        return results

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
        """The chain's id. What is told first is what every other endpoint has to tell."""
        found = self.quantity("eth_chainId")
        if self.fixed is None:
            self.fixed = found
        return found

    def block_number(self) -> int:
        """Number of the newest block.

        Of several endpoints, one that fell behind what was seen is passed over. Only if all of them answer, and all
        are lower, was the chain cut back; while one is away, the others may be late. Then it raises ChainUnavailable.
        """
        number = self.quantity("eth_blockNumber")
        if number < self.seen and self.others:
            number = self.leader(number)
        self.seen = number
        return number

    def leader(self, own: int) -> int:
        """Change to the endpoint that is furthest; its height."""
        heights, silent = {self.url: own}, False
        for url in self.others:
            try:
                if self.fixed is None or int(self.ask(url, "eth_chainId"), 16) == self.fixed:
                    heights[url] = self.height(url)
            except (ChainUnavailable, ContractRefused, *MALFORMED):
                silent = True
        best = max(heights, key=lambda url: heights[url])
        if heights[best] < self.seen and silent:
            raise ChainUnavailable(
                f"every endpoint that answers is behind block {self.seen}, which was seen", "wait, or correct chain.rpc"
            )
        if best != self.url:
            self.use(best)
        return heights[best]

    def logs(self, wanted: dict[str, str]) -> Any:
        """Logs of a range of blocks; None where the endpoint answers with an error, or not in time: ask for less.

        Nodes word their limits in many ways (too many results, range too wide, response too large, query timeout), so
        every error counts as one. A single block is asked for by `call`, which says what is wrong. Raises as `call`.
        """
        try:
            return self.ask(self.url, "eth_getLogs", wanted)
        except ChainUnavailable as error:
            late = isinstance(error.__cause__, requests.Timeout) and not self.others
            if late or error.__cause__ is None:
                return None
            return self.call("eth_getLogs", wanted)
        except ContractRefused:
            return None

    def block(self, number: int | None) -> Header | None:
        """A block's header by number, or the newest one for None; None where there is none."""
        tag = "latest" if number is None else hex(number)
        answer = self.call("eth_getBlockByNumber", tag, False)
        if answer is None:
            return None
        try:
            fee = answer.get("baseFeePerGas")
            block = Block(int(answer["number"], 16), digest(answer["hash"]))
            return Header(block, None if fee is None else int(fee, 16), Seconds(int(answer["timestamp"], 16)))
        except MALFORMED as error:
            raise malformed(self.url, "eth_getBlockByNumber") from error

    def newest(self) -> Header:
        """The newest block's header, which every chain has. Raises as `call` does."""
        header = self.block(None)
        if header is None:
            raise malformed(self.url, "eth_getBlockByNumber")
        return header


def connect(urls: str | tuple[str, ...]) -> Rpc:
    """The chain behind the endpoints of `chain.rpc`, the first one preferred."""
    first, *others = (urls,) if isinstance(urls, str) else urls
    return Rpc(first, tuple(others))


def is_local(url: str) -> bool:
    """Whether an endpoint is on this machine; False for what is no address at all, as the first call says."""
    try:
        return urlsplit(url).hostname in LOOPBACK
    except ValueError:
        return False


def only_reads(body: Any) -> bool:
    """Whether a JSON-RPC body changes nothing. What sends a transaction repeats it itself (`flb.chain.sender`), since it
    must tell a transaction that arrived the first time from a nonce that another one used."""
    methods = [str(item["method"]) for item in (body if isinstance(body, list) else [body])]
    return all(method.startswith("eth_") and not method.startswith("eth_send") for method in methods)


def was_reset(error: BaseException) -> bool:
    """Whether a request failed because the other side cut the connection."""
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        seen = seen.__cause__ or seen.__context__
    return seen is not None


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
