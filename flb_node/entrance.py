# SPDX-License-Identifier: Apache-2.0
"""How a node becomes a member and commits to its dataset: with coins of its own, or through the aggregator's Relay.

Each look asks the chain what is missing and does one thing about it, so a node that was killed, or whose message was
lost, goes on where the chain stands. Nothing the aggregator answers counts: the chain does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flb.errors import ContractRefused, NotAMember, Refused, Unavailable
from flb.identity import address_of
from flb.membership import (
    NO_INVITE,
    Invite,
    Kind,
    Message,
    Rules,
    SignedMessage,
    Slot,
    Status,
    invited,
    sign_message,
    word_of,
)
from flb.roster import RunView
from flb.types import ZERO_ADDRESS, Address, Digest, Domain, Member, Seconds
from flb_node.answers import Relayed

MESSAGE_SECONDS = 3600
"""How long a message that this node signs may be used."""
PASSING = ("", "FLBReplayed", "FLBAlreadyMember", "FLBNotMember", "FLBExpired")
"""Refusals that another look at the chain mends."""


class Chain(Protocol):
    """What is asked of the chain; every call blocks and may raise ChainUnavailable, LostChain or ContractRefused."""

    def head(self) -> RunView:
        """What the newest block says."""
        ...

    def slot(self, node: Address) -> Slot:
        """What the contract holds of a node."""
        ...

    def rules(self) -> Rules:
        """Admitter, end of the run, and time."""
        ...

    def coins(self) -> int:
        """What the account of this node's key holds, in wei."""
        ...

    def join(self, payee: Address, invite: Invite) -> None:
        """Become a member."""
        ...

    def register_dataset(self, node: Address, root: Digest, records: int) -> None:
        """Commit to a dataset."""
        ...


@dataclass(slots=True)
class Entrance:
    """One node's way in. `mode` is client.relay, `now` gives Unix seconds."""

    domain: Domain
    node: Address
    key: bytes
    chain: Chain
    dataset: tuple[Digest, int]
    log: Callable[[str], None]
    now: Callable[[], float]
    mode: str = "auto"
    payee: Address = ZERO_ADDRESS
    invite: Invite = NO_INVITE
    pending: SignedMessage | None = None
    """The newest one that was handed to the aggregator; the same again asks what became of it."""

    def knock(self, view: RunView) -> None:
        """Raise NotAMember where the run does not want this node, before anything costs time; nothing is sent."""
        member = view.members.get(self.node)
        if member is not None:
            self.check_key(member)
        elif (slot := self.chain.slot(self.node)).status is not Status.ACTIVE:
            self.admitted(slot)

    def enter(self, view: RunView, relay: Callable[[SignedMessage], Relayed]) -> bool:
        """Whether the node is a member with its dataset; if not, one step towards it has been taken.

        Raises NotAMember where the run does not want it, Refused or ContractRefused for what the contract refuses,
        and what `relay` raises.
        """
        member = view.members.get(self.node)
        if member is None:
            self.join(relay)
            return False
        self.check_key(member)
        root, records = self.dataset
        if root in view.datasets.get(self.node, {}):
            return True
        self.register(root, records, relay)
        return False

    def join(self, relay: Callable[[SignedMessage], Relayed]) -> None:
        """Join, unless the chain shows a membership that the confirmed view does not."""
        slot = self.chain.slot(self.node)
        if slot.status is Status.ACTIVE:
            return
        rules = self.admitted(slot)
        if self.pays(lambda: self.chain.join(self.payee, self.invite)):
            self.log("joined the run")
            return
        message = Message(Kind.JOIN, self.node, slot.seq + 1, self.deadline(rules), word_of(self.payee))
        self.hand(message, slot, self.invite, relay)

    def admitted(self, slot: Slot) -> Rules:
        """The run's rules, under which this node may join. Raises NotAMember."""
        if slot.status is Status.LEFT:
            raise NotAMember(
                "this node left the run or was removed from it", "ask the operator, then join with another key"
            )
        rules = self.chain.rules()
        try:
            invited(self.node, slot, self.invite, self.domain, rules)
        except ContractRefused as error:
            raise self.uninvited(error) from error
        return rules

    def check_key(self, member: Member) -> None:
        """Raise NotAMember if another key signs for this node."""
        if member.key != address_of(self.key):
            raise NotAMember(
                f"0x{member.key.hex()} signs for node 0x{self.node.hex()}, and this keystore holds another key",
                "use the keystore of the new key and set client.node",
            )

    def register(self, root: Digest, records: int, relay: Callable[[SignedMessage], Relayed]) -> None:
        """Commit to the dataset."""
        slot = self.chain.slot(self.node)  # before the head: what is mined after it still has `pending`'s number
        if root in self.chain.head().datasets.get(self.node, {}):
            return  # it is in, and the confirmed view does not show it yet
        if self.pays(lambda: self.chain.register_dataset(self.node, root, records)):
            self.log(f"registered a dataset of {records} records")
            return
        rules = self.chain.rules()
        message = Message(Kind.REGISTER_DATASET, self.node, slot.seq + 1, self.deadline(rules), root, records)
        if self.hand(message, slot, NO_INVITE, relay):
            self.log(f"registered a dataset of {records} records through the aggregator")

    def pays(self, send: Callable[[], None]) -> bool:
        """Whether this node sent the transaction with coins of its own. Raises ContractRefused where it must."""
        if self.mode == "always" or (self.mode == "auto" and self.chain.coins() == 0):
            return False
        try:
            send()
        except ContractRefused as error:
            if error.name != "InsufficientFunds" or self.mode == "never":
                raise
            return False
        return True

    def deadline(self, rules: Rules) -> Seconds:
        """When a message that is signed now ends: the chain's clock may be ahead of this machine's."""
        return Seconds(max(int(self.now()), rules.now) + MESSAGE_SECONDS)

    def hand(self, message: Message, slot: Slot, invite: Invite, relay: Callable[[SignedMessage], Relayed]) -> bool:
        """Give a message to the aggregator, the one of before while it is still good; True the first time it is taken."""
        kept = self.pending
        again = (
            kept is not None
            and kept.message.kind is message.kind
            and kept.message.seq > slot.seq
            and kept.message.deadline > message.deadline - MESSAGE_SECONDS + MESSAGE_SECONDS // 2
        )
        signed = kept if again and kept is not None else sign_message(self.key, self.domain, message, invite)
        answer = relay(signed)
        if answer.state in ("accepted", "mined"):
            self.pending = signed
            return not again
        self.pending = None
        if answer.error in PASSING:
            raise Unavailable(f"the aggregator did not relay this node's message ({answer.reason})", "trying again")
        if answer.error == "FLBNotInvited":
            raise self.uninvited(ContractRefused(answer.error))
        raise Refused(f"the aggregator refused to relay this node's message ({answer.reason})", "correct config.yaml")

    def uninvited(self, error: ContractRefused) -> NotAMember:
        """The sentence with which a person gets an invite."""
        run, node = "0x" + self.domain.run.hex(), "0x" + self.node.hex()
        if error.name == "FLBExpired":
            what = f"the invite of node {node} is over"
        elif self.invite == NO_INVITE:
            what = f"this run admits by invitation, and node {node} has no invite"
        else:
            what = f"the invite in client.invite is not for node {node} and this run, or was voided"
        return NotAMember(
            what, f"ask the operator for the line of flb chain invite {run} {node}, and set client.invite to it"
        )
