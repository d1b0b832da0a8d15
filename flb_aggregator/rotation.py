# SPDX-License-Identifier: Apache-2.0
"""What the registry says about this aggregator's endpoint, kept equal to what it serves; a new certificate in turn.

A rotation publishes the next certificate, waits until the chain shows it under the run's confirmations, serves it, and
publishes it as the current one. Each turn is chosen from the files and the chain alone, so a restart goes on from
wherever it was, and a node that reads the chain at any moment finds the served certificate named there.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, TypeAlias

from flb.errors import ContractRefused, Unavailable
from flb.roster import RunView
from flb.types import ZERO_DIGEST, Digest
from flb_aggregator.certificate import Certificates
from flb_aggregator.ports import Sent

Published: TypeAlias = tuple[str, Digest, Digest]
"""What `setEndpoint` says: address, certificate, next certificate."""
RESEND_SECONDS = 600.0
"""A published endpoint that the confirmed chain does not show by then is published again."""


class Turn(Enum):
    """What is to be done next."""

    REST = "nothing"
    PREPARE = "make the next certificate"
    PUBLISH = "publish what this aggregator serves"
    SWITCH = "serve the next certificate"


class Publisher(Protocol):
    """The part of `Sender` that is used."""

    def set_endpoint(self, uri: str, cert_digest: Digest, next_cert_digest: Digest) -> Sent:
        """Publish."""
        ...


def published(view: RunView) -> Published:
    """What the chain says."""
    return view.uri, view.cert_digest, view.next_cert_digest


def choose(own: Published, on_chain: Published, requested: bool) -> Turn:
    """The next turn: `own` is what this aggregator wants to be on chain."""
    if requested:
        return Turn.PREPARE  # with a rotation under way this only takes the request back
    if own != on_chain:
        return Turn.PUBLISH
    return Turn.SWITCH if own[2] != ZERO_DIGEST else Turn.REST


@dataclass(slots=True)
class Rotation:
    """Keeps the registry and the served certificate together. Without certificates there is only an address."""

    uri: str
    certificates: Certificates | None
    publisher: Publisher
    log: Callable[[str], None]
    now: Callable[[], float]
    """Seconds that never run backwards."""
    sent: tuple[Published, float] | None = None
    poke: asyncio.Event = field(default_factory=asyncio.Event)

    def own(self) -> Published:
        """What should be on chain."""
        held = self.certificates
        return (self.uri, held.current.digest, held.next_digest) if held else (self.uri, ZERO_DIGEST, ZERO_DIGEST)

    def accepted(self, view: RunView) -> frozenset[Digest]:
        """The digests that a session may name: our own, and what the chain still names while a switch is confirmed."""
        if self.certificates is None:
            return frozenset({ZERO_DIGEST})
        return (self.certificates.digests() | {view.cert_digest, view.next_cert_digest}) - {ZERO_DIGEST}

    def turn(self, view: RunView) -> Turn:
        """Take one turn, and say which. Blocks. Raises ContractRefused or ChainUnavailable."""
        held = self.certificates
        chosen = choose(self.own(), published(view), held is not None and held.requested())
        match chosen:
            case Turn.PREPARE if held is not None:
                held.prepare()
                self.log(f"a new certificate is ready: {held.next_digest.hex()}")
            case Turn.PUBLISH:
                self.publish(self.own())
            case Turn.SWITCH if held is not None:
                held.switch()
                self.log(f"serving the certificate {held.current.digest.hex()}")
        return chosen

    def publish(self, own: Published) -> None:
        """Send `setEndpoint`, unless it was sent and the chain may still come to show it."""
        if self.sent is not None and self.sent[0] == own and self.now() - self.sent[1] < RESEND_SECONDS:
            return
        self.publisher.set_endpoint(*own)
        self.sent = own, self.now()
        self.log(f"published the endpoint {own[0]}, certificate {own[1].hex()[:16]}…")

    def request(self) -> None:
        """The operator asks for a new certificate."""
        if self.certificates is None:
            self.log("this aggregator serves no TLS, so there is no certificate to renew")
            return
        self.certificates.request()
        self.poke.set()

    async def follow(self, view: Callable[[], RunView], poll_seconds: float) -> None:
        """Take turns for ever; what the chain refuses or cannot take now is tried again later."""
        refused = ""
        while True:
            try:
                seen = view()
                chosen = await asyncio.to_thread(self.turn, seen) if seen.block_number >= 0 else Turn.REST
            except ContractRefused as error:
                self.sent = self.own(), self.now()  # not at every poll
                chosen = Turn.REST
                self.log(f"the endpoint could not be published: {error}")
            except Unavailable as error:
                if str(error) != refused:
                    self.log(f"{error}; waiting")
                refused, chosen = str(error), Turn.REST
            else:
                refused = ""
            if chosen in (Turn.PREPARE, Turn.SWITCH):
                continue
            try:
                await asyncio.wait_for(self.poke.wait(), poll_seconds)
            except TimeoutError:
                continue
            self.poke.clear()
