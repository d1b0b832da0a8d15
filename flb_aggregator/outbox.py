# SPDX-License-Identifier: Apache-2.0
"""The transaction that ends a round, sent until it is mined or not due any more: once at a time for each opening."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from flb.chain.refusal import ACCOUNT_FAULTS
from flb.errors import ContractRefused, Unavailable
from flb.rounds import Name
from flb.types import Round
from flb_aggregator.metrics import Metrics
from flb_aggregator.ports import Sent

RETRY_SECONDS = 1.0
"""Wait after the chain was away, or the account could not pay."""


@dataclass(slots=True)
class Outbox:
    """Sends `roll` and `expire`; the machine asks again for what was lost."""

    metrics: Metrics
    log: Callable[[str], None]
    sending: set[tuple[str, Name]] = field(default_factory=set)

    async def submit(self, what: str, name: Name, send: Callable[[], Sent], due: Callable[[], bool]) -> None:
        """Send, and again after an outage as long as it is `due`: the contract checks the round's number alone."""
        key = (what, name)
        if key in self.sending:
            return
        self.sending.add(key)
        try:
            while due():
                if await self.sent(what, name[0], send):
                    break
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self.sending.discard(key)

    async def sent(self, what: str, number: Round, send: Callable[[], Sent]) -> bool:
        """One try; False if it is worth another."""
        try:
            mined = await asyncio.to_thread(send)
        except ContractRefused as error:
            if (
                error.name == "FLBTooEarly"
            ):  # the chain's clock is behind ours, or the round younger than the run allows
                return False
            if error.name in ACCOUNT_FAULTS:  # the round waits until the operator has mended it
                self.log(f"{error}; trying again")
                return False
            if error.name not in ("FLBWrongRound", "revert"):
                raise
            # somebody else ended the round first; "revert" is the same, seen only when it was mined
            self.log(f"round {number}: {what} is not due any more ({error})")
            return True
        except Unavailable as error:
            self.log(f"{error}; trying again")
            return False
        self.metrics.sealed(number, what, mined.tx, mined.gas_used)
        self.log(f"round {number}: {what} mined, {mined.gas_used} gas")
        return True
