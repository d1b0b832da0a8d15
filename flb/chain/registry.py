# SPDX-License-Identifier: Apache-2.0
"""The reader: a run's events up to a confirmed block, folded into a view; a reorg rewinds the cursor.

The cursor is a place, number and hash. When the chain does not hold that hash any more, the newest block that was seen
and is still there is looked for by bisection; what lies above it is dropped and read again. What lies below it is
folded anew: events are few, and a fresh fold cannot keep a stale fact.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import decode, encode

from flb.chain import abi
from flb.chain.events import from_log
from flb.chain.rpc import MALFORMED, Header, Rpc, lost, malformed
from flb.errors import ChainUnavailable, ContractRefused
from flb.events import ChainEvent
from flb.roster import RunView, fold
from flb.types import Address, Block, Domain

RANGE = 2_000
"""Most blocks a request: hosted endpoints refuse long ranges, and some also those with many logs."""
NEWEST = 8
"""So many of the newest blocks are read one by one under their hash. Of a range, header and logs come in two requests,
and between them a reorg can take the logs away and bring the header back."""
MARKS = 1_024
"""So many ends of reads are kept to find a fork by, besides the blocks of the events, which are kept anyway: 0.2 MiB."""


@dataclass(slots=True)
class Registry:
    """One run on one chain, read. `confirmations` blocks must lie on top of what is believed."""

    rpc: Rpc
    domain: Domain
    deploy_block: int
    confirmations: int = 0
    events: list[ChainEvent] = field(default_factory=list)
    view: RunView = field(default_factory=RunView)
    cursor: Block | None = None
    marks: deque[Block] = field(default_factory=lambda: deque(maxlen=MARKS))
    """Ends of reads, in rising order: each was the cursor once, so all events below it belong to its chain."""
    span: int = RANGE
    """Blocks of the next request: halved when the endpoint finds a range too long, doubled when it does not."""

    def poll(self) -> RunView:
        """Read what is new and return what holds now. Raises ChainUnavailable, or LostChain."""
        newest = self.rpc.block_number() - self.confirmations
        if self.cursor is not None and newest == self.cursor.number and self.holds(self.cursor):
            return self.view
        if self.cursor is not None and newest < self.cursor.number and self.confirmations:
            # an endpoint that is late, which takes nothing back that was final; a longer chain without it will
            self.check_run()
            return self.view
        if self.cursor is None or newest < self.cursor.number or not self.holds(self.cursor):
            self.rewind(newest)
        start = self.deploy_block if self.cursor is None else self.cursor.number + 1
        while start <= newest:
            end = start if start > newest - NEWEST else min(newest - NEWEST, start + min(self.span, RANGE) - 1)
            if self.read(start, end):
                if start <= newest - NEWEST:
                    self.span = min(2 * self.span, RANGE)
                start = end + 1
            else:
                self.span = (end - start + 1) // 2
        return self.view

    def holds(self, place: Block) -> bool:
        """Whether the chain still has this block."""
        header = self.rpc.block(place.number)
        return header is not None and header.block.hash == place.hash

    def rewind(self, newest: int) -> None:
        """Go back to the newest block up to `newest` that was seen and is still on the chain, or to nothing read.

        Raises LostChain where the run itself is gone.
        """
        self.check_run()
        fork, kept = self.fork(newest)
        events = self.events[:kept]  # another list: somebody may be reading the old one
        self.view, self.events, self.cursor = fold(events), events, fork
        while self.marks and (fork is None or self.marks[-1].number > fork.number):
            self.marks.pop()

    def fork(self, newest: int) -> tuple[Block | None, int]:
        """The newest seen block that the chain still holds, None for none, and how many events lie up to there.

        A block names the one before, so all below one that holds do, too, and bisection finds it. The logs of a long
        range can stem from another fork than its last header; so no mark counts above an event that does not hold.
        """
        events = [event.place.block for event in self.events]
        kept = self.held(events, newest)
        limit = min([newest, *(block.number - 1 for block in events[kept : kept + 1])])
        marks = list(self.marks)
        seen = events[kept - 1 : kept] if kept else []
        if count := self.held(marks, limit):
            seen.append(marks[count - 1])
        return max(seen, key=lambda block: block.number, default=None), kept

    def held(self, blocks: Sequence[Block], newest: int) -> int:
        """How many of these blocks, which rise, the chain still holds, up to the number `newest`."""
        within = bisect_right(blocks, newest, key=lambda block: block.number)
        return bisect_left(blocks, True, hi=within, key=lambda block: not self.holds(block))

    def check_run(self) -> None:
        """Raise LostChain unless this chain has the run's contract at its address."""
        code = self.rpc.data("eth_getCode", "0x" + self.domain.run.hex(), "latest")
        if not code or self.rpc.chain_id() != self.domain.chain_id:
            raise lost(self.rpc.url, self.domain.run)
        if self.rpc.block_number() < self.deploy_block:
            raise lost(self.rpc.url, self.domain.run)

    def read(self, start: int, end: int) -> bool:
        """Fold the events of a range of blocks, or of one under its hash, and move the cursor behind it.

        False, and nothing happened, if the endpoint finds the range too long.
        """
        header = self.rpc.block(end)
        if header is None:
            raise ChainUnavailable(f"the chain at {self.rpc.url} lost block {end} while it was read", "trying again")
        places = {"fromBlock": hex(start), "toBlock": hex(end)} if start < end else {"blockHash": hex_of(header)}
        wanted = {"address": "0x" + self.domain.run.hex(), **places}
        logs = self.rpc.logs(wanted) if start < end else self.rpc.call("eth_getLogs", wanted)
        if logs is None and start < end:
            return False
        if not isinstance(logs, list):
            raise malformed(self.rpc.url, "eth_getLogs")
        found = sorted(
            (event for event in map(from_log, logs) if event is not None),
            key=lambda event: (event.place.block.number, event.place.index),
        )
        if any(not start <= event.place.block.number <= end for event in found):
            raise ChainUnavailable("the chain's answer holds logs from outside the range", "use another RPC endpoint")
        if self.cursor is not None and not self.holds(self.cursor):
            # else events of the fork that went away would stay below a cursor that the new fork holds
            raise ChainUnavailable(f"the chain at {self.rpc.url} was reordered while it was read", "trying again")
        self.view = fold(found, self.view)
        self.events += found
        self.cursor = Block(end, header.block.hash)
        self.marks.append(self.cursor)
        return True


def hex_of(header: Header) -> str:
    """A block's hash as JSON-RPC has it."""
    return "0x" + header.block.hash.hex()


def find_deploy_block(rpc: Rpc, run: Address) -> int:
    """The block in which the run's contract appeared, by bisection over its code; 0 where old state is not kept."""

    def there(number: int) -> bool:
        return bool(rpc.data("eth_getCode", "0x" + run.hex(), hex(number)))

    low, high = 0, rpc.block_number()
    if not there(high):
        raise lost(rpc.url, run)
    try:
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if there(middle) else (middle + 1, high)
    except (ChainUnavailable, ContractRefused):
        return 0
    return low


def call_view(rpc: Rpc, run: Address, name: str, *values: Any, contract: str = "FLBRun") -> tuple[Any, ...]:
    """What a view function of the run answers, or one of another contract. Raises ChainUnavailable, or LostChain where
    none is."""
    item = abi.load(contract).functions[name]
    data = item.signature[:4] + encode(item.inputs, values)
    answer = rpc.data("eth_call", {"to": "0x" + run.hex(), "data": "0x" + data.hex()}, "latest")
    if not answer:
        raise lost(rpc.url, run)  # an address without code answers every call with nothing
    try:
        found = zip(item.outputs, decode(item.outputs, answer), strict=True)
        return tuple(Address(bytes.fromhex(value[2:])) if kind == "address" else value for kind, value in found)
    except MALFORMED as error:
        raise malformed(rpc.url, "eth_call") from error
