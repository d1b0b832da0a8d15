# SPDX-License-Identifier: Apache-2.0
"""A node's way in: own coins or the Relay, what it asks again, and the sentences for who is not wanted."""

from dataclasses import dataclass, field, replace

import pytest

from flb.errors import Busy, ContractRefused, NotAMember, Refused, Unavailable
from flb.identity import address_of
from flb.membership import NO_INVITE, Invite, Kind, SignedMessage, Slot, Status, sign_invite
from flb.roster import RunView
from flb.types import ZERO_ADDRESS, Address, Digest, Member, Seconds
from flb_node.answers import Relayed
from flb_node.entrance import Entrance
from tests.relaying import END, MemorySlots
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_of

pytestmark = pytest.mark.unit

KEY = key_of(0)
NODE = address_of(KEY)
ROOT = Digest(b"\x0d" * 32)
RECORDS = 7


@dataclass
class Chain(MemorySlots):
    """The node's port over slots in memory."""

    wei: int = 0
    sent: list[str] = field(default_factory=list)

    def coins(self) -> int:
        return self.wei

    def join(self, payee: Address, invite: Invite) -> None:
        self.pay("join")
        self.slots[NODE] = Slot(payee, NODE, 0, Status.ACTIVE, 0, 0)

    def register_dataset(self, node: Address, root: Digest, records: int) -> None:
        self.pay("register")
        self.slots[node] = replace(self.slots[node], datasets=1)

    def pay(self, what: str) -> None:
        if self.wei < 10:
            raise ContractRefused("InsufficientFunds", (), "fund the account")
        self.sent.append(what)

    def view(self, dataset: bool = False) -> RunView:
        """What the events would say."""
        slot = self.slot(NODE)
        member = Member(NODE, slot.key, slot.payee)
        members = {NODE: member} if slot.status is Status.ACTIVE else {}
        return RunView(members=members, datasets={NODE: {ROOT: 7}} if dataset else {})

    def head(self) -> RunView:
        """With the dataset, once it is registered."""
        return self.view(self.slot(NODE).datasets > 0)

    def take(self, signed: SignedMessage) -> Relayed:
        """A relay that mines at once."""
        skipped = self.relay([signed]).skipped
        return Relayed("skipped", skipped[0], "why") if skipped else Relayed("mined")


def entrance(chain: Chain, mode: str = "auto", invite: Invite = NO_INVITE) -> Entrance:
    return Entrance(
        DOMAIN, NODE, KEY, chain, (ROOT, RECORDS), lambda text: None, lambda: float(chain.now), mode, invite=invite
    )


def unreachable(signed: SignedMessage) -> Relayed:
    raise AssertionError("nothing is relayed")


def invite(node: Address = NODE, removals: int = 0, deadline: Seconds = END) -> Invite:
    return sign_invite(AGGREGATOR_KEY, DOMAIN, node, removals, deadline)


def test_enter__without_coins__joins_and_registers_through_the_relay() -> None:
    chain = Chain()
    made = entrance(chain)
    assert not made.enter(chain.view(), chain.take)
    assert chain.slot(NODE).status is Status.ACTIVE
    assert not made.enter(chain.view(), chain.take)
    assert made.enter(chain.view(dataset=True), unreachable)
    assert [batch[0].message.kind for batch in chain.batches] == [Kind.JOIN, Kind.REGISTER_DATASET]
    assert chain.batches[1][0].message.records == RECORDS and chain.sent == []


@dataclass
class MinesBetweenReads(Chain):
    """A chain whose block, with what was handed over, comes right after the first thing that is asked of it next."""

    waiting: list[SignedMessage] = field(default_factory=list)

    def slot(self, node: Address) -> Slot:
        found = super().slot(node)
        if self.waiting:
            self.relay([self.waiting.pop()])
        return found

    def head(self) -> RunView:
        view = self.view(super().slot(NODE).datasets > 0)
        if self.waiting:
            self.relay([self.waiting.pop()])
        return view

    def view(self, dataset: bool = False) -> RunView:
        slot = super().slot(NODE)
        return RunView(
            members={NODE: Member(NODE, slot.key, slot.payee)}, datasets={NODE: {ROOT: 7}} if dataset else {}
        )


def test_enter__registration_mined_between_two_reads__is_not_signed_again() -> None:
    chain = MinesBetweenReads()
    made = entrance(chain)
    made.enter(RunView(), chain.take)

    def accept_it(signed: SignedMessage) -> Relayed:
        chain.waiting.append(signed)
        return Relayed("accepted")

    assert not made.enter(chain.view(), accept_it)
    assert not made.enter(chain.view(), unreachable)
    assert chain.slots[NODE].datasets == 1 and chain.slots[NODE].seq == 2


def test_knock__nobody_invited_it_or_it_left__is_told_and_nothing_is_sent() -> None:
    chain = Chain(wei=100, admitter=address_of(AGGREGATOR_KEY))
    with pytest.raises(NotAMember, match="has no invite"):
        entrance(chain).knock(chain.view())
    entrance(chain, invite=invite()).knock(chain.view())
    entrance(chain, invite=invite()).enter(chain.view(), unreachable)
    for view in (chain.view(), RunView()):  # a member needs no invite any more, in the view or not yet
        entrance(chain).knock(view)
    chain.slots[NODE] = replace(chain.slot(NODE), status=Status.LEFT)
    with pytest.raises(NotAMember, match="left the run or was removed"):
        entrance(chain).knock(chain.view())
    assert chain.sent == ["join"] and chain.batches == []


def test_enter__with_coins__pays_itself() -> None:
    chain = Chain(wei=100)
    made = entrance(chain)
    assert not made.enter(chain.view(), unreachable) and not made.enter(chain.view(), unreachable)
    assert chain.sent == ["join", "register"]


def test_enter__with_too_few_coins__goes_to_the_relay_unless_it_never_may() -> None:
    chain = Chain(wei=1)
    assert not entrance(chain).enter(chain.view(), chain.take)
    assert len(chain.batches) == 1
    poor = Chain(wei=1)
    with pytest.raises(ContractRefused, match="InsufficientFunds"):
        entrance(poor, "never").enter(poor.view(), unreachable)


def test_enter__always__relays_in_spite_of_coins() -> None:
    chain = Chain(wei=100)
    assert not entrance(chain, "always").enter(chain.view(), chain.take)
    assert chain.sent == [] and len(chain.batches) == 1


def test_enter__accepted_and_not_yet_on_chain__asks_with_the_same_message() -> None:
    chain, asked = Chain(), list[SignedMessage]()

    def slow(signed: SignedMessage) -> Relayed:
        asked.append(signed)
        return Relayed("accepted")

    made = entrance(chain)
    for _ in range(3):
        assert not made.enter(chain.view(), slow)
        chain.now = Seconds(chain.now + 60)
    assert asked[0] == asked[1] == asked[2]
    chain.now = Seconds(chain.now + 3000)
    assert not made.enter(chain.view(), slow)
    assert asked[3].message.deadline > asked[0].message.deadline, "the first one would soon be over"


def test_enter__mined_and_not_yet_confirmed__sends_nothing_more() -> None:
    chain = Chain()
    made = entrance(chain)
    before = chain.view()
    made.enter(before, chain.take)
    assert not made.enter(before, unreachable)
    made.enter(chain.view(), chain.take)
    assert not made.enter(chain.view(), unreachable), "the registration is in, the view lags"


def test_enter__lost_by_the_aggregator__is_sent_again() -> None:
    chain = Chain()
    made = entrance(chain)
    made.enter(chain.view(), lambda signed: Relayed("accepted"))
    assert not made.enter(chain.view(), chain.take)
    assert chain.slot(NODE).status is Status.ACTIVE


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (NO_INVITE, f"node 0x{NODE.hex()} has no invite: ask the operator for the line of flb chain invite 0x"),
        (invite(node=address_of(key_of(1))), "the invite in client.invite is not for node"),
        (invite(removals=1), "was voided"),
        (invite(deadline=Seconds(5)), "is over"),
    ],
)
def test_enter__not_invited__is_told_its_address_and_the_command(held: Invite, sentence: str) -> None:
    chain = Chain(admitter=address_of(AGGREGATOR_KEY), wei=100)
    with pytest.raises(NotAMember, match=sentence) as caught:
        entrance(chain, invite=held).enter(chain.view(), unreachable)
    assert f"flb chain invite 0x{DOMAIN.run.hex()} 0x{NODE.hex()}" in str(caught.value)


def test_enter__invited__joins() -> None:
    chain = Chain(admitter=address_of(AGGREGATOR_KEY))
    assert not entrance(chain, invite=invite()).enter(chain.view(), chain.take)
    assert chain.slot(NODE).status is Status.ACTIVE


def test_enter__removed__stays_away() -> None:
    chain = Chain(slots={NODE: Slot(NODE, NODE, 1, Status.LEFT, 0, 1)})
    with pytest.raises(NotAMember, match="left the run or was removed"):
        entrance(chain).enter(chain.view(), unreachable)


def test_enter__with_a_key_of_before__is_told_which_one_signs() -> None:
    chain = Chain(slots={NODE: Slot(NODE, address_of(key_of(1)), 1, Status.ACTIVE, 0, 0)})
    with pytest.raises(NotAMember, match=f"0x{address_of(key_of(1)).hex()} signs for node"):
        entrance(chain).enter(chain.view(), unreachable)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Relayed("skipped", "FLBReplayed", "why"), Unavailable),
        (Relayed("refused", "", "the contract would skip this message"), Unavailable),
        (Relayed("refused", "FLBNotInvited", "why"), NotAMember),
        (Relayed("refused", "FLBPayeeFixed", "why"), Refused),
    ],
)
def test_enter__refused_by_the_relay__waits_or_stops(answer: Relayed, error: type[Exception]) -> None:
    chain = Chain()
    made = entrance(chain)
    with pytest.raises(error):
        made.enter(chain.view(), lambda signed: answer)
    assert made.pending is None


def test_enter__busy_aggregator__is_passed_on() -> None:
    def busy(signed: SignedMessage) -> Relayed:
        raise Busy("the budget is spent", "flb chain join", 600)

    chain = Chain(admitter=ZERO_ADDRESS)
    with pytest.raises(Busy):
        entrance(chain).enter(chain.view(), busy)
