# SPDX-License-Identifier: Apache-2.0
"""Transactions of one account: nonces, fees, simulation first, and the receipt. Custom errors come back decoded."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from eth_account import Account

from flb.chain import abi
from flb.chain.events import digest
from flb.chain.rpc import MALFORMED, Rpc, malformed
from flb.errors import ChainUnavailable, ContractRefused, Refused
from flb.identity import address_of
from flb.membership import NO_INVITE, Invite
from flb.records import Roll
from flb.types import Address, Block, Digest, Round

TIP = 10**9
"""Priority fee in wei a gas."""
RECEIPT_SECONDS = 120.0
"""How long to wait for a receipt before the chain counts as away."""
POLL_SECONDS = 0.05
GAS_MARGIN = 1.25
"""On top of the estimate: another transaction may warm or fill a slot in between."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A mined transaction."""

    tx: Digest
    gas_used: int
    block: Block
    logs: tuple[Any, ...]
    contract: Address | None


@dataclass(slots=True)
class Sender:
    """Sends from one account to one run. Thread-safe; one process an account."""

    rpc: Rpc
    key: bytes
    run: Address | None = None
    nonce: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def address(self) -> Address:
        """The account."""
        return address_of(self.key)

    def send(self, to: Address | None, data: bytes) -> Mined:
        """Simulate, sign, send, and wait for the receipt. Raises Refused, mostly ContractRefused, or ChainUnavailable."""
        try:
            tx = self.submit(to, data)
        except ContractRefused as error:
            if error.name != "NonceUsed":
                raise
            tx = self.submit(to, data)  # the nonce that was remembered counted transactions that a reorg took back
        return self.wait(tx)

    def submit(self, to: Address | None, data: bytes) -> Digest:
        """Simulate, sign and hand over; returns the transaction's hash. Raises as `send` does."""
        fields: dict[str, Any] = {"from": "0x" + self.address.hex(), "data": "0x" + data.hex()}
        if to is not None:
            fields["to"] = "0x" + to.hex()
        with self.lock:
            gas = int(self.rpc.quantity("eth_estimateGas", fields) * GAS_MARGIN)
            newest = self.rpc.block(None)
            if newest is None:
                raise malformed(self.rpc.url, "eth_getBlockByNumber")
            if newest.base_fee is None:
                raise Refused(f"the chain at {self.rpc.url} has no base fee", "use a chain with EIP-1559 fees")
            if self.nonce is None:
                self.nonce = self.rpc.quantity("eth_getTransactionCount", fields["from"], "pending")
            transaction = {
                "type": 2,
                "chainId": self.rpc.chain_id(),
                "nonce": self.nonce,
                "gas": gas,
                "maxPriorityFeePerGas": TIP,
                "maxFeePerGas": 2 * newest.base_fee + TIP,
                "value": 0,
                "data": fields["data"],
                **({"to": to} if to is not None else {}),
            }
            signed = Account.sign_transaction(transaction, self.key)
            try:
                self.push(bytes(signed.raw_transaction))
            except (ChainUnavailable, ContractRefused):
                self.nonce = None  # learn it anew: the transaction may or may not be in
                raise
            self.nonce += 1
        return Digest(bytes(signed.hash))

    def push(self, raw: bytes) -> None:
        """Hand a signed transaction over; once more after a cut, since the same bytes are the same transaction."""
        try:
            self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
        except ChainUnavailable:
            time.sleep(1.0)
            try:
                self.rpc.call("eth_sendRawTransaction", "0x" + raw.hex())
            except ContractRefused as error:
                if error.name not in ("NonceUsed", "AlreadyKnown"):  # else it arrived the first time
                    raise

    def wait(self, tx: Digest) -> Mined:
        """The receipt, once it is mined. Raises ContractRefused where it was mined but failed."""
        deadline = time.monotonic() + RECEIPT_SECONDS
        while time.monotonic() < deadline:
            receipt = self.rpc.call("eth_getTransactionReceipt", "0x" + tx.hex())
            if receipt is not None:
                try:
                    good, mined = int(receipt["status"], 16) == 1, _mined(tx, receipt)
                except MALFORMED as error:
                    raise malformed(self.rpc.url, "eth_getTransactionReceipt") from error
                if not good:
                    raise ContractRefused("revert", (tx,), "it was mined, but the state had changed in between")
                return mined
            time.sleep(POLL_SECONDS)
        with self.lock:
            self.nonce = None  # the chain may have dropped it, and every later nonce would wait behind the gap
        raise ChainUnavailable(f"transaction 0x{tx.hex()} is not mined", "the chain is slow; it is looked for again")

    def invoke(self, name: str, *values: Any) -> Mined:
        """Call a function of the run."""
        assert self.run is not None, "a sender without a run only deploys"
        return self.send(self.run, calldata("FLBRun", name, *values))

    def join(self, payee: Address, invite: Invite = NO_INVITE) -> Mined:
        """Become a member, paid at `payee`."""
        return self.invoke("join", payee, (invite.deadline, invite.compact[:32], invite.compact[32:]))

    def leave(self) -> Mined:
        """Leave."""
        return self.invoke("leave", self.address)

    def remove(self, node: Address) -> Mined:
        """Remove a member."""
        return self.invoke("remove", node)

    def register_dataset(self, root: Digest, records: int) -> Mined:
        """Commit to a dataset."""
        return self.invoke("registerDataset", self.address, root, records)

    def set_endpoint(self, uri: str, cert_digest: Digest, next_cert_digest: Digest) -> Mined:
        """Publish where the aggregator listens."""
        return self.invoke("setEndpoint", uri, cert_digest, next_cert_digest)

    def set_aggregator(self, aggregator: Address) -> Mined:
        """Hand over from the next opening on."""
        return self.invoke("setAggregator", aggregator)

    def start(self) -> Mined:
        """Open round 1."""
        return self.invoke("start")

    def finish(self) -> Mined:
        """Make the open round the last."""
        return self.invoke("finish")

    def roll(self, roll: Roll) -> Mined:
        """Seal a round."""
        fields = (
            roll.record_digest, roll.adapter_digest, roll.updates_root, roll.scores_root, roll.payout_root,
            roll.accepted, roll.weight_sum,
        )  # fmt: skip
        return self.invoke("roll", roll.round, fields)

    def expire(self, number: Round) -> Mined:
        """Void a round."""
        return self.invoke("expire", number)


def _mined(tx: Digest, receipt: Any) -> Mined:
    block = Block(int(receipt["blockNumber"], 16), digest(receipt["blockHash"]))
    made = receipt.get("contractAddress")
    contract = Address(bytes.fromhex(made[2:])) if made else None
    return Mined(tx, int(receipt["gasUsed"], 16), block, tuple(receipt["logs"]), contract)


def calldata(contract: str, name: str, *values: Any) -> bytes:
    """Selector and packed arguments."""
    item = abi.load(contract).functions[name]
    return item.signature[:4] + encode(item.inputs, values)
