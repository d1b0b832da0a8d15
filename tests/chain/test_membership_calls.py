# SPDX-License-Identifier: Apache-2.0
"""Signed messages on a real chain: the contract and `flb.membership` refuse the same, and a simulation tells which."""

from dataclasses import replace

import pytest

from flb.chain import local, membership_calls
from flb.errors import ContractRefused
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
    accept,
    sign_invite,
    sign_message,
    word_of,
)  # fmt: skip
from flb.merkle import keccak256
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Domain, Seconds
from tests.chains import Deployed, deploy

pytestmark = pytest.mark.chain

KEYS = [bytes(keccak256(bytes([index]))) for index in range(8)]
NODES = [address_of(key) for key in KEYS]
ROOT = Digest(b"\x0d" * 32)


@pytest.fixture
def admitted(deployed: Deployed, factory: Address) -> Deployed:
    """A run that admits by invitation; its owner invites."""
    return deploy(deployed.rpc, factory, admission=True)


def message(deployed: Deployed, kind: Kind, index: int, seq: int = 1, subject: Digest = ZERO_DIGEST, records: int = 0,
            ahead: int = 3600, invite: Invite = NO_INVITE, domain: Domain | None = None) -> SignedMessage:  # fmt: skip
    """A message of node `index`."""
    end = Seconds(membership_calls.read_rules(deployed.rpc, deployed.run).now + ahead)
    value = Message(kind, NODES[index], seq, end, subject, records)
    return sign_message(KEYS[index], domain or deployed.domain, value, invite)


def invite(deployed: Deployed, index: int, removals: int = 0, ahead: int = 3600) -> Invite:
    end = Seconds(membership_calls.read_rules(deployed.rpc, deployed.run).now + ahead)
    return sign_invite(deployed.owner.key, deployed.domain, NODES[index], removals, end)


def foretold(deployed: Deployed, batch: list[SignedMessage]) -> dict[int, str]:
    """The errors by index, by the rules in Python."""
    rules = membership_calls.read_rules(deployed.rpc, deployed.run)
    slots: dict[Address, Slot] = {}
    errors = {}
    for index, signed in enumerate(batch):
        node = signed.message.node
        slots.setdefault(node, membership_calls.read_slot(deployed.rpc, deployed.run, node))
        try:
            slots[node] = accept(signed, slots[node], deployed.domain, Rules(rules.admitter, rules.finished, rules.now))
        except ContractRefused as error:
            errors[index] = error.name
    return errors


def test_relay__good_and_bad_messages__the_bad_ones_are_skipped_for_the_reason_that_python_gives(
    admitted: Deployed,
) -> None:
    d = admitted
    joins = [message(d, Kind.JOIN, index, invite=invite(d, index)) for index in range(3)]
    batch = [
        *joins,
        message(d, Kind.REGISTER_DATASET, 0, 2, ROOT, 7),
        message(d, Kind.REVOKE_DATASET, 0, 3, ROOT),
        message(d, Kind.ROTATE_KEY, 1, 2, word_of(NODES[7])),
        message(d, Kind.LEAVE, 2, 5),
        joins[0],
        message(d, Kind.JOIN, 0, 9, invite=invite(d, 0)),
        message(d, Kind.LEAVE, 1, 3),
        message(d, Kind.JOIN, 3, invite=invite(d, 4)),
        message(d, Kind.JOIN, 4, invite=invite(d, 4, removals=1)),
        message(d, Kind.JOIN, 5, invite=invite(d, 5, ahead=-1)),
        message(d, Kind.JOIN, 5),
        message(d, Kind.LEAVE, 5, ahead=-1),
        message(d, Kind.LEAVE, 5),
        message(d, Kind.REGISTER_DATASET, 0, 9, ROOT),
        message(d, Kind.REGISTER_DATASET, 0, 9, ZERO_DIGEST, 7),
        message(d, Kind.LEAVE, 0, 9, domain=Domain(1, d.run)),
        replace(message(d, Kind.LEAVE, 0, 9), compact=bytes(64)),
        message(d, Kind.ROTATE_KEY, 0, 9),
        message(d, Kind.JOIN, 2, 6, word_of(NODES[3]), invite=invite(d, 2)),
    ]
    told, simulated = foretold(d, batch), membership_calls.simulate(d.rpc, d.run, batch)
    mined = membership_calls.relay(d.aggregator, batch)
    assert membership_calls.skipped(mined, d.run) == told
    assert set(told.values()) == {
        "FLBReplayed", "FLBAlreadyMember", "FLBBadSignature", "FLBNotInvited", "FLBExpired", "FLBNotMember", "FLBZero",
        "FLBPayeeFixed",
    }  # fmt: skip
    assert sorted(told) == list(range(7, len(batch)))
    assert simulated[:7] == (True,) * 7
    slot = membership_calls.read_slot(d.rpc, d.run, NODES[1])
    assert slot == Slot(NODES[1], NODES[7], 2, Status.ACTIVE, 0, 0)


@pytest.mark.parametrize("count", [1, 64])
def test_simulate__batch__changes_nothing_and_is_right(deployed: Deployed, count: int) -> None:
    keys = [bytes(keccak256(b"many" + bytes([index]))) for index in range(count)]
    end = Seconds(membership_calls.read_rules(deployed.rpc, deployed.run).now + 3600)
    batch = [
        sign_message(key if index % 3 else KEYS[0], deployed.domain, Message(Kind.JOIN, address_of(key), 1, end))
        for index, key in enumerate(keys)
    ]
    effects = membership_calls.simulate(deployed.rpc, deployed.run, batch)
    assert effects == tuple(bool(index % 3) for index in range(count))
    assert membership_calls.read_slot(deployed.rpc, deployed.run, batch[-1].message.node).status is Status.NONE
    skipped = membership_calls.skipped(membership_calls.relay(deployed.aggregator, batch), deployed.run)
    assert set(skipped) == set(range(0, count, 3)) and set(skipped.values()) == {"FLBBadSignature"}


def test_remove__voids_the_invite__and_leaving_does_not(admitted: Deployed) -> None:
    d, held = admitted, invite(admitted, 0)
    node = replace(d.nodes[0], key=KEYS[0])
    local.fund(d.rpc, node.address, ether=1)
    membership_calls.join(node, ZERO_ADDRESS, held)
    membership_calls.leave(node, node.address)
    membership_calls.join(node, ZERO_ADDRESS, held)
    d.owner.remove(node.address)
    with pytest.raises(ContractRefused) as caught:
        membership_calls.join(node, ZERO_ADDRESS, held)
    assert caught.value.name == "FLBNotInvited"
    assert membership_calls.read_slot(d.rpc, d.run, node.address).removals == 1
    membership_calls.join(node, ZERO_ADDRESS, invite(d, 0, removals=1))


def test_calls__of_a_member__rotate_pay_and_revoke(deployed: Deployed) -> None:
    node, other = deployed.nodes
    membership_calls.join(node, other.address)
    membership_calls.register_dataset(node, node.address, ROOT, 7)
    membership_calls.revoke_dataset(node, node.address, ROOT)
    membership_calls.rotate_key(other, node.address, other.address)
    with pytest.raises(ContractRefused, match="FLBUnauthorized"):
        membership_calls.leave(node, node.address)
    membership_calls.set_payee(other, node.address, node.address)
    membership_calls.leave(other, node.address)
    slot = membership_calls.read_slot(deployed.rpc, deployed.run, node.address)
    assert slot == Slot(node.address, other.address, 5, Status.LEFT, 1, 0)
