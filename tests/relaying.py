# SPDX-License-Identifier: Apache-2.0
"""The relay's chain port in memory: slots under the contract's rules, as `flb.membership` has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flb.errors import ContractRefused, FLBError
from flb.membership import NO_INVITE, Invite, Kind, Message, Rules, SignedMessage, Slot, Status, accept, sign_message
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Domain, Seconds
from flb_aggregator.relay import Relayed
from tests.sim import DOMAIN, key_of, members

END = Seconds(2_000_000_000)


def message(
    index: int, kind: Kind = Kind.JOIN, seq: int = 1, subject: Digest = ZERO_DIGEST, records: int = 0,
    deadline: Seconds = END, invite: Invite = NO_INVITE, domain: Domain = DOMAIN,
) -> SignedMessage:  # fmt: skip
    """A message of the node whose key is `key_of(index)`."""
    from flb.identity import address_of

    value = Message(kind, address_of(key_of(index)), seq, deadline, subject, records)
    return sign_message(key_of(index), domain, value, invite)


@dataclass
class MemorySlots:
    """A contract's membership in memory."""

    admitter: Address = ZERO_ADDRESS
    now: Seconds = Seconds(1_900_000_000)
    slots: dict[Address, Slot] = field(default_factory=dict)
    batches: list[list[SignedMessage]] = field(default_factory=list)
    faults: list[FLBError] = field(default_factory=list)
    """What the next calls of `relay` raise instead."""

    def enroll(self, count: int) -> None:
        """Members as `tests.sim.members` makes them."""
        for member in members(count):
            self.slots[member.node] = Slot(member.payee, member.key, 0, Status.ACTIVE, 1, 0)

    def rules(self) -> Rules:
        """Admitter and time."""
        return Rules(self.admitter, False, self.now)

    def slot(self, node: Address) -> Slot:
        """A node's slot."""
        return self.slots.get(node, Slot(ZERO_ADDRESS, node, 0, Status.NONE, 0, 0))

    def simulate(self, messages: Sequence[SignedMessage]) -> tuple[bool, ...]:
        """On a copy."""
        kept = dict(self.slots)
        skipped = self.apply(messages)
        self.slots = kept
        return tuple(index not in skipped for index in range(len(messages)))

    def relay(self, messages: Sequence[SignedMessage]) -> Relayed:
        """Mine them, or raise the next fault."""
        if self.faults:
            raise self.faults.pop(0)
        self.batches.append(list(messages))
        return Relayed(Digest(bytes([len(self.batches)]) * 32), 30_000 * len(messages), self.apply(messages))

    def apply(self, messages: Sequence[SignedMessage]) -> dict[int, str]:
        """The contract's loop: the errors by index."""
        skipped = {}
        for index, signed in enumerate(messages):
            try:
                self.slots[signed.message.node] = accept(signed, self.slot(signed.message.node), DOMAIN, self.rules())
            except ContractRefused as error:
                skipped[index] = error.name
        return skipped
