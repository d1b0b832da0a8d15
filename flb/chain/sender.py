# SPDX-License-Identifier: Apache-2.0
"""Transactions of one account: simulated, written down, sent, found again, replaced if stuck, until there is a receipt.

The nonce is what ties it together: a call keeps its own until the chain has used it, so it is done at most once however
often it is sent. Custom errors come back decoded.
"""

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi.abi import encode

from flb.chain import abi
from flb.chain.failure import failure
from flb.chain.fees import Fees, market, raised
from flb.chain.outbox import Entry, Outbox
from flb.chain.rpc import MALFORMED, Rpc, malformed
from flb.chain.transaction import Mined, mined_of, sign
from flb.errors import ChainUnavailable, ContractRefused, Refused
from flb.identity import address_of
from flb.records import Roll
from flb.types import Address, Digest, Round

__all__ = ["Mined", "Sender", "calldata"]

RECEIPT_SECONDS = 120.0
"""How long to wait for a receipt before the chain counts as away."""
POLL_SECONDS, SLOW_POLL_SECONDS = 0.05, 1.0
"""Between two looks at the chain's head, at first and later."""
QUIET_SECONDS = 2.0
"""Without a new block for so long, and a transaction is looked for all the same: it may have been dropped, and an
endpoint may name a block before it has its receipts."""
STUCK_BLOCKS = 3
"""So many blocks without it, and a transaction pays too little. A chain that stands still raises no fee."""
TRIES = 3
"""Nonces that may go to somebody else before a call is given up."""
GAS_MARGIN = 1.25
"""On top of the estimate: another transaction may warm or fill a slot in between."""


@dataclass(slots=True)
class Sender:
    """Sends from one account to one run. Thread-safe; one process an account."""

    rpc: Rpc
    key: bytes
    run: Address | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    outbox: Outbox = field(default_factory=Outbox)

    @property
    def address(self) -> Address:
        """The account."""
        return address_of(self.key)

    def send(self, to: Address | None, data: bytes) -> Mined:
        """Simulate, write down, send, and wait for the receipt; go on with the same call if it is under way already.

        Raises Refused, mostly ContractRefused, or ChainUnavailable: then the transaction stays in the outbox, and the
        next call looks for it first.
        """
        for _ in range(TRIES):
            entry = self.place(to, data)
            mined = self.wait(entry) if entry is not None else None
            if mined is not None:
                return mined
        raise ContractRefused("NonceUsed", (), "another process sends from this account; give each its own")

    def place(self, to: Address | None, data: bytes) -> Entry | None:
        """Hand a call over once, after it is written down; None if its nonce went to somebody else meanwhile."""
        fields = self.fields(to, data)
        with self.lock:
            chain_id = self.rpc.chain_id()
            waiting = self.heal(chain_id, to, data)
            for entry in waiting:
                if (entry.to, entry.data) == (to, data):
                    return entry
            gas = int(self.rpc.quantity("eth_estimateGas", fields) * GAS_MARGIN)
            fees = self.market()
            nonce, taken = self.count("pending"), {entry.nonce for entry in waiting}
            while nonce in taken:
                nonce += 1
            blank = Entry(chain_id, self.address, nonce, to, data, gas, ())
            entry = replace(blank, attempts=(sign(blank, fees, self.key),))
            self.outbox.add(entry)
            try:
                self.push(entry.attempts[-1].raw)
            except ContractRefused as error:
                if error.name in ("NonceUsed", "Underpriced") and self.known(entry):
                    return entry  # an endpoint took it whose answer was lost
                self.outbox.settle(entry)
                if error.name in ("NonceUsed", "Underpriced"):
                    return None
                raise
        return entry

    def heal(self, chain_id: int, to: Address | None, data: bytes) -> list[Entry]:
        """Look at what was sent and not settled, as after a crash; what was dropped is sent again, if it is still due.

        Whether it is due the contract says: a call that it refuses by now is given up, and its nonce is free. The call
        that is wanted now is among what this returns even if it was mined, so that it is not repeated.
        """
        waiting = []
        for entry in self.outbox.pending(chain_id, self.address):
            gone = self.count("latest") > entry.nonce  # before the receipt, which is there once the count has risen
            try:
                mined = self.receipt(entry)
            except ContractRefused:
                continue  # it failed, which its own caller was told, or died before
            if mined is not None and (entry.to, entry.data) == (to, data):
                waiting.append(entry)
            elif mined is not None or gone:
                self.outbox.settle(entry)
            elif self.known(entry):
                waiting.append(entry)
            else:
                try:
                    self.rpc.quantity("eth_estimateGas", self.fields(entry.to, entry.data))
                    self.push(entry.attempts[-1].raw)
                    waiting.append(entry)
                except ContractRefused:
                    self.outbox.settle(entry)
        return waiting

    def wait(self, entry: Entry) -> Mined | None:
        """The receipt, once one of the attempts is mined; None if the nonce went to another transaction.

        Between two blocks nothing is mined, so all but the head is asked once a block and every `QUIET_SECONDS`. An attempt that stays out of `STUCK_BLOCKS` blocks is replaced by one that pays more. Raises ContractRefused
        where it was mined but failed, and ChainUnavailable where nothing was mined for `RECEIPT_SECONDS`.
        """
        deadline, pause = time.monotonic() + RECEIPT_SECONDS, POLL_SECONDS
        since, seen, due, gone = -1, -1, 0.0, False
        while (now := time.monotonic()) < deadline:
            head = self.rpc.block_number()
            if head != seen or gone or now >= due:
                seen, due = head, now + QUIET_SECONDS
                mined = self.receipt(entry)
                if mined is not None:
                    self.outbox.settle(entry)
                    return mined
                if gone:
                    self.outbox.settle(entry)
                    return None
                gone = self.count("latest") > entry.nonce  # then the receipt is there by the next look, if it is ours
                since = head if since < 0 else since
                if not gone and head >= since + STUCK_BLOCKS:
                    entry, since = self.replaced(entry), head
                elif not gone and not self.known(entry):
                    self.push_again(entry)
            time.sleep(pause)
            pause = min(1.25 * pause, SLOW_POLL_SECONDS)
        raise ChainUnavailable(
            f"transaction 0x{entry.attempts[-1].tx.hex()} is not mined", "the chain is slow; it is looked for again"
        )

    def replaced(self, entry: Entry) -> Entry:
        """The same call with the same nonce and higher fees, written down and handed over; as it is at the ceiling."""
        with self.lock:
            held = [e for e in self.outbox.pending(entry.chain_id, entry.account) if e.nonce == entry.nonce]
            if held and len(held[0].attempts) > len(entry.attempts):
                return held[0]  # another thread that waits for the same call was faster
            fees = raised(entry.attempts[-1].fees, self.market())
            if fees is not None:
                entry = replace(entry, attempts=(*entry.attempts, sign(entry, fees, self.key)))
                self.outbox.add(entry)
            self.push_again(entry)
        return entry

    def push_again(self, entry: Entry) -> None:
        """Hand the newest attempt over; what the pool has against it shows in the receipt or at the next look."""
        try:
            self.push(entry.attempts[-1].raw)
        except ContractRefused:
            return

    def fields(self, to: Address | None, data: bytes) -> dict[str, str]:
        """A call as JSON-RPC simulates it."""
        where = {} if to is None else {"to": "0x" + to.hex()}
        return {"from": "0x" + self.address.hex(), "data": "0x" + data.hex(), **where}

    def market(self) -> Fees:
        """What the newest block asks for, with the tip that the chain suggests. Raises Refused on a chain without EIP-1559."""
        newest = self.rpc.newest()
        if newest.base_fee is None:
            raise Refused(f"the chain at {self.rpc.url} has no base fee", "use a chain with EIP-1559 fees")
        try:
            return market(newest.base_fee, self.rpc.quantity("eth_maxPriorityFeePerGas"))
        except (ChainUnavailable, ContractRefused):
            return market(newest.base_fee)  # not every node has the method

    def count(self, tag: str) -> int:
        """The account's transactions: `latest` for mined ones, `pending` with those that wait."""
        return self.rpc.quantity("eth_getTransactionCount", "0x" + self.address.hex(), tag)

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
        except ContractRefused as error:
            if error.name != "AlreadyKnown":
                raise

    def known(self, entry: Entry) -> bool:
        """Whether the chain has one of the attempts, mined or waiting."""
        return any(self.rpc.call("eth_getTransactionByHash", "0x" + one.tx.hex()) for one in entry.attempts[::-1])

    def receipt(self, entry: Entry) -> Mined | None:
        """What became of an entry, if one of its attempts is mined. Raises ContractRefused where it failed."""
        for attempt in entry.attempts[::-1]:
            receipt = self.rpc.call("eth_getTransactionReceipt", "0x" + attempt.tx.hex())
            if receipt is None:
                continue
            try:
                good, mined = int(receipt["status"], 16) == 1, mined_of(attempt.tx, receipt)
            except MALFORMED as error:
                raise malformed(self.rpc.url, "eth_getTransactionReceipt") from error
            if not good:
                call = {**self.fields(entry.to, entry.data), "gas": hex(entry.gas)}
                refused = failure(self.rpc, call, mined)
                self.outbox.settle(entry)
                raise refused
            return mined
        return None

    def invoke(self, name: str, *values: Any) -> Mined:
        """Call a function of the run."""
        assert self.run is not None, "a sender without a run only deploys"
        return self.send(self.run, calldata("FLBRun", name, *values))

    def remove(self, node: Address) -> Mined:
        """Remove a member."""
        return self.invoke("remove", node)

    def set_endpoint(self, uri: str, cert_digest: Digest, next_cert_digest: Digest) -> Mined:
        """Publish where the aggregator listens."""
        return self.invoke("setEndpoint", uri, cert_digest, next_cert_digest)

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


def calldata(contract: str, name: str, *values: Any) -> bytes:
    """Selector and packed arguments."""
    item = abi.load(contract).functions[name]
    return item.signature[:4] + encode(item.inputs, values)
