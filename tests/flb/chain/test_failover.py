# SPDX-License-Identifier: Apache-2.0
"""Several endpoints of one chain: a dead one, one on another chain and one that is late are passed over; long ranges."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from flb.chain.registry import NEWEST, RANGE, Registry
from flb.chain.rpc import Rpc, connect
from flb.errors import ChainUnavailable
from flb.types import Address, Domain
from tests.chains import serving

pytestmark = pytest.mark.e2e

RUN = Address(b"\x11" * 20)
DEAD = "http://127.0.0.1:1"


class Endpoint:
    """An endpoint of a chain whose blocks have their number as hash, up to `height`; `longest` blocks a range."""

    def __init__(self, height: int, chain: int = 31337, longest: int = 10**9) -> None:
        self.height, self.chain, self.longest = height, chain, longest
        self.away = False
        self.asked: list[str] = []
        self.ranges: list[int] = []

    def __call__(self, request: Any) -> bytes | None:
        if self.away:
            return None
        self.asked.append(request["method"])
        try:
            answer = {"result": self.result(request["method"], request["params"])}
        except ValueError as error:
            answer = {"error": {"code": -32005, "message": str(error)}}
        return json.dumps({"jsonrpc": "2.0", "id": 1, **answer}).encode()

    def result(self, method: str, params: list[Any]) -> Any:
        match method:
            case "eth_chainId":
                return hex(self.chain)
            case "eth_blockNumber":
                return hex(self.height)
            case "eth_getCode":
                return "0x60"
            case "eth_getBlockByNumber":
                number = self.height if params[0] == "latest" else int(params[0], 16)
                header = {"number": hex(number), "hash": f"0x{number:064x}", "timestamp": hex(number)}
                return header if number <= self.height else None
            case "eth_getLogs" if "fromBlock" in params[0]:
                blocks = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
                self.ranges.append(blocks)
                if blocks > self.longest:
                    raise ValueError("query returned more than 10000 results")
                return []
            case "eth_getLogs":
                return []
        raise AssertionError(method)


def test_call__first_endpoint_dead__the_next_is_asked_and_stays() -> None:
    second = Endpoint(5)
    with serving(second) as url:
        rpc = connect((DEAD, url))
        assert rpc.chain_id() == 31337
        assert (rpc.url, rpc.others) == (url, (DEAD,))
        rpc.block_number()
        assert second.asked[-1] == "eth_blockNumber"


def test_call__endpoint_breaks_while_in_use__the_other_goes_on_and_back() -> None:
    first, second = Endpoint(5), Endpoint(6)
    with serving(first) as one, serving(second) as two:
        rpc = connect((one, two))
        assert (rpc.chain_id(), rpc.block_number()) == (31337, 5)
        first.away = True
        assert rpc.block_number() == 6
        first.away, second.away, first.height = False, True, 7
        assert rpc.block_number() == 7


def test_call__every_endpoint_dead__is_chain_unavailable() -> None:
    with pytest.raises(ChainUnavailable, match="does not answer"):
        connect((DEAD, "http://127.0.0.1:2")).block_number()


@pytest.mark.parametrize("other", [Endpoint(9, chain=1), Endpoint(4)], ids=["another chain", "late"])
def test_call__other_endpoint_not_of_this_chain_or_late__is_passed_over(other: Endpoint) -> None:
    first = Endpoint(5)
    with serving(first) as one, serving(other) as two:
        rpc = connect((one, two))
        assert (rpc.chain_id(), rpc.block_number()) == (31337, 5)
        first.away = True
        with pytest.raises(ChainUnavailable):
            rpc.block(None)
        assert rpc.url == one


def test_block_number__endpoint_in_use_falls_behind__the_one_ahead_is_taken() -> None:
    first, second = Endpoint(5), Endpoint(5)
    with serving(first) as one, serving(second) as two:
        rpc = connect((one, two))
        assert rpc.block_number() == 5
        first.height = 3
        assert rpc.block_number() == 5
        assert rpc.url == two


def test_block_number__all_fell_back__is_believed_only_when_all_answer() -> None:
    first, second = Endpoint(5), Endpoint(5)
    with serving(first) as one, serving(second) as two:
        rpc = connect((one, two))
        assert rpc.block_number() == 5
        first.height, second.away = 3, True
        with pytest.raises(ChainUnavailable, match="every endpoint that answers is behind block 5"):
            rpc.block_number()
        second.away, second.height = False, 4
        assert rpc.block_number() == 4


def reading(rpc: Rpc, confirmations: int = 0) -> Registry:
    return Registry(rpc, Domain(31337, RUN), 1, confirmations)


def test_poll__late_endpoint_with_confirmations__takes_nothing_back() -> None:
    endpoint = Endpoint(20)
    with serving(endpoint) as url:
        reader = reading(Rpc(url), confirmations=3)
        reader.poll()
        cursor = reader.cursor
        assert cursor is not None and cursor.number == 17
        for height in (19, 12):
            endpoint.height = height
            asked = len(endpoint.asked)
            reader.poll()
            assert reader.cursor == cursor
            assert "eth_getLogs" not in endpoint.asked[asked:]
        endpoint.height = 21
        reader.poll()
        assert reader.cursor is not None and reader.cursor.number == 18


@pytest.mark.parametrize("longest", [1_999, 300, 2])
def test_poll__range_too_long__is_halved_and_grows_again(longest: int) -> None:
    blocks = 5_000 if longest > 2 else 60
    endpoint = Endpoint(blocks + NEWEST, longest=longest)
    with serving(endpoint) as url:
        reader = reading(Rpc(url))
        reader.poll()
    assert reader.cursor is not None and reader.cursor.number == blocks + NEWEST
    good = [length for length in endpoint.ranges if length <= longest]
    assert sum(good) + endpoint.asked.count("eth_getLogs") - len(endpoint.ranges) == blocks + NEWEST
    first_good = endpoint.ranges.index(good[0])
    assert max(endpoint.ranges[first_good + 1 :]) > longest, "it tries a longer one again"
    assert max(endpoint.ranges) <= RANGE


def test_poll__every_range_refused__reads_block_by_block_and_says_why_where_that_fails() -> None:
    endpoint = Endpoint(30, longest=0)
    result = endpoint.result

    def nothing(method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs":
            raise ValueError("the archive is away")
        return result(method, params)

    with serving(endpoint) as url:
        reader = reading(Rpc(url))
        assert reader.poll() is reader.view
        assert reader.cursor is not None and reader.cursor.number == 30
        changed: Callable[[str, list[Any]], Any] = nothing
        endpoint.result = changed  # type: ignore[method-assign]
        with pytest.raises(ChainUnavailable, match="the archive is away"):
            reading(Rpc(url)).poll()
