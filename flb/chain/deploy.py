# SPDX-License-Identifier: Apache-2.0
"""Deploying: the factory once a chain, then a run in one transaction."""

from dataclasses import dataclass

from eth_abi.abi import decode

from flb.chain import abi
from flb.chain.events import digest
from flb.chain.rpc import MALFORMED, malformed
from flb.chain.sender import Mined, Sender, calldata
from flb.errors import ChainUnavailable, LostChain
from flb.merkle import keccak256
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest


@dataclass(frozen=True, slots=True)
class Settings:
    """What `initialize` fixes: see IFLBRun.Settings."""

    spec: Digest
    adapter: Digest
    steps: int
    round_seconds: int
    grace_seconds: int
    owner: Address
    aggregator: Address
    admitter: Address
    uri: str = ""
    cert_digest: Digest = ZERO_DIGEST
    next_cert_digest: Digest = ZERO_DIGEST
    min_round_seconds: int = 0
    token: Address = ZERO_ADDRESS
    payout_delay_seconds: int = 0


def deploy_factory(sender: Sender) -> Address:
    """Deploy the factory and with it the implementation."""
    return deploy_code(sender, "FLBFactory")


def deploy_code(sender: Sender, name: str) -> Address:
    """Deploy a contract of ours whose constructor takes nothing."""
    mined = sender.send(None, abi.load(name).bytecode)
    if mined.contract is None:
        raise ChainUnavailable("the chain's receipt names no contract", "use another RPC endpoint")
    return mined.contract


def create_run(sender: Sender, factory: Address, settings: Settings) -> tuple[Address, Mined]:
    """Make and initialize a run; returns its address and the transaction."""
    if not sender.rpc.data("eth_getCode", "0x" + factory.hex(), "latest"):
        raise LostChain(
            f"there is no factory at 0x{factory.hex()} on the chain at {sender.rpc.url}",
            "leave chain.factory out to deploy one",
        )
    s = settings
    fields = (
        s.spec, s.adapter, s.steps, s.round_seconds, s.grace_seconds, s.min_round_seconds, s.owner, s.aggregator,
        s.admitter, s.token, s.payout_delay_seconds, s.uri, s.cert_digest, s.next_cert_digest,
    )  # fmt: skip
    mined = sender.send(factory, calldata("FLBFactory", "createRun", fields))
    topic = keccak256(b"RunCreated(address,address,bytes32)")
    try:
        for log in mined.logs:
            topics = [digest(text) for text in log["topics"]]
            if topics[:1] == [topic]:
                return Address(bytes.fromhex(decode(["address"], topics[1])[0][2:])), mined
    except MALFORMED as error:
        raise malformed(sender.rpc.url, "eth_getTransactionReceipt") from error
    raise ChainUnavailable("the receipt of createRun holds no RunCreated", "use another RPC endpoint")
