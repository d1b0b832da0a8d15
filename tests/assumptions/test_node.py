# SPDX-License-Identifier: Apache-2.0
"""What `flb.chain` takes for granted about requests and about the node, tested where it can break."""

from typing import Any

import pytest
import requests
from eth_account import Account

from flb.chain import membership_calls
from flb.chain.rpc import Rpc
from flb.errors import ContractRefused
from flb.merkle import keccak256
from flb.types import ZERO_ADDRESS, Round
from tests.chains import Deployed, a_roll, account, mine

pytestmark = pytest.mark.chain


def request(rpc: Rpc, method: str, *params: Any) -> Any:
    """The whole answer."""
    return rpc.request(method, *params)


@pytest.mark.parametrize("method", ["eth_estimateGas", "eth_call"])
def test_request__revert__is_an_answer_whose_error_holds_the_data(deployed: Deployed, method: str) -> None:
    sender = "0x" + deployed.nodes[0].address.hex()
    leave = "0x" + keccak256(b"leave(address)")[:4].hex() + "00" * 12 + sender[2:]
    answer = request(deployed.rpc, method, {"from": sender, "to": "0x" + deployed.run.hex(), "data": leave})
    expected = "0x" + keccak256(b"FLBNotMember(address)")[:4].hex() + "00" * 12 + sender[2:]
    assert answer["error"]["data"] == expected
    assert "result" not in answer


def test_request__dead_endpoint__raises_what_requests_raises() -> None:
    with pytest.raises(requests.ConnectionError):
        request(Rpc("http://127.0.0.1:1"), "eth_chainId")


def test_request__what_is_not_there__is_null_or_empty(rpc: Rpc) -> None:
    assert request(rpc, "eth_getBlockByNumber", hex(10**9), False)["result"] is None
    assert request(rpc, "eth_getTransactionReceipt", "0x" + "12" * 32)["result"] is None
    assert request(rpc, "eth_getCode", "0x" + "12" * 20, "latest")["result"] == "0x"
    assert request(rpc, "eth_getLogs", {"address": "0x" + "12" * 20, "fromBlock": "0x0"})["result"] == []


def test_send_raw_transaction__known_one__is_refused_in_words_that_are_understood(rpc: Rpc) -> None:
    """The node must say so, or a transaction whose answer was lost would be sent twice or given up."""
    sender = account(rpc)

    def signed(nonce: int) -> str:
        fields = {
            "type": 2, "chainId": rpc.chain_id(), "nonce": nonce, "gas": 21_000, "maxPriorityFeePerGas": 10**9,
            "maxFeePerGas": 10**11, "value": 0, "data": "0x", "to": sender.address,
        }  # fmt: skip
        return "0x" + bytes(Account.sign_transaction(fields, sender.key).raw_transaction).hex()

    assert rpc.call("eth_sendRawTransaction", signed(0)) == "0x" + keccak256(bytes.fromhex(signed(0)[2:])).hex()
    with pytest.raises(ContractRefused) as caught:
        rpc.call("eth_sendRawTransaction", signed(0))
    assert caught.value.name == "NonceUsed"
    rpc.call("evm_setAutomine", False)
    try:
        rpc.call("eth_sendRawTransaction", signed(1))
        with pytest.raises(ContractRefused) as caught:
            rpc.call("eth_sendRawTransaction", signed(1))
        assert caught.value.name == "AlreadyKnown"
    finally:
        rpc.call("evm_setAutomine", True)
        rpc.call("evm_mine")


def test_request__whole_run__never_asks_for_a_tag_that_is_not_on_every_chain(
    deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`finalized` and `safe` mean nothing on a local chain and differ between networks: confirmations are counted."""
    asked: list[tuple[str, Any]] = []
    real = Rpc.request

    def spy(rpc: Rpc, method: str, *params: Any, url: str | None = None) -> Any:
        asked.append((method, list(params)))
        return real(rpc, method, *params, url=url)

    monkeypatch.setattr(Rpc, "request", spy)
    rpc = Rpc(deployed.rpc.url)
    for sender in (deployed.owner, deployed.aggregator, *deployed.nodes):
        sender.rpc = rpc
    membership_calls.join(deployed.nodes[0], ZERO_ADDRESS)
    deployed.owner.start()
    deployed.aggregator.roll(a_roll(1))
    reader = deployed.registry(confirmations=2)
    reader.rpc = rpc
    mine(rpc, 2)
    assert [event.round for event in reader.poll().rolls] == [Round(1)]
    methods = {method for method, _ in asked}
    assert {"eth_estimateGas", "eth_sendRawTransaction", "eth_getTransactionReceipt", "eth_getLogs"} <= methods
    assert not [entry for entry in asked if "finalized" in repr(entry) or "'safe'" in repr(entry)]
