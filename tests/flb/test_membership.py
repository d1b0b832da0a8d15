# SPDX-License-Identifier: Apache-2.0
"""Membership messages against a general encoder, invites as text, and every refusal by its name."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import identity, membership
from flb.errors import BadMessage, BadSignature, ContractRefused
from flb.membership import NO_INVITE, Invite, Kind, Message, Rules, SignedMessage, Slot, Status
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Domain, Seconds
from tests.flb.test_identity import DOMAIN, KEY, NODE, general

pytestmark = pytest.mark.unit

VECTORS = Path(__file__).resolve().parents[2] / "proto" / "vectors" / "membership.json"
ADMITTER_KEY, PAYEE_KEY, NEW_KEY = (bytes(31) + bytes([number]) for number in (8, 9, 10))
ADMITTER, PAYEE, NEW = map(identity.address_of, (ADMITTER_KEY, PAYEE_KEY, NEW_KEY))
END = Seconds(1_800_000_000)
ROOT = Digest(b"\x0d" * 32)
FRESH = Slot(ZERO_ADDRESS, NODE, 0, Status.NONE, 0, 0)
ACTIVE = Slot(PAYEE, NODE, 1, Status.ACTIVE, 0, 0)
OPEN = Rules(ZERO_ADDRESS, False, Seconds(END - 10))
ADMITTED = replace(OPEN, admitter=ADMITTER)
JOIN = Message(Kind.JOIN, NODE, 3, END, membership.word_of(PAYEE))
MESSAGES = {
    membership.JOIN_TYPE: (JOIN, {"payee": "0x" + PAYEE.hex()}),
    membership.LEAVE_TYPE: (replace(JOIN, kind=Kind.LEAVE, subject=ZERO_DIGEST), {}),
    membership.ROTATE_KEY_TYPE: (replace(JOIN, kind=Kind.ROTATE_KEY), {"key": "0x" + PAYEE.hex()}),
    membership.REGISTER_DATASET_TYPE: (
        Message(Kind.REGISTER_DATASET, NODE, 3, END, ROOT, 2**64 - 1), {"root": ROOT, "records": 2**64 - 1},
    ),
    membership.REVOKE_DATASET_TYPE: (Message(Kind.REVOKE_DATASET, NODE, 3, END, ROOT), {"root": ROOT}),
}  # fmt: skip

GOLDEN = (
    "aeagwsosabcxpznzl3zjrghqhaej3hwbyy7s2lglbzqwt4ewfdc6rjpcesic"
    "tjx6wfcvfkcgrwa42xd4j5zrp34zzkioeg7dwuaxljl5jq67bxpl4mq54zi"
)


def signed(message: Message, key: bytes = KEY, invite: Invite = NO_INVITE, domain: Domain = DOMAIN) -> SignedMessage:
    return membership.sign_message(key, domain, message, invite)


def invite(node: Address = NODE, removals: int = 0, key: bytes = ADMITTER_KEY, deadline: Seconds = END) -> Invite:
    return membership.sign_invite(key, DOMAIN, node, removals, deadline)


def refusal(message: SignedMessage, slot: Slot = ACTIVE, rules: Rules = OPEN) -> str:
    with pytest.raises(ContractRefused) as caught:
        membership.accept(message, slot, DOMAIN, rules)
    return caught.value.name


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.decode().partition("(")[0])
def test_sign_message__each_kind__equals_the_general_encoder(kind: bytes) -> None:
    message, more = MESSAGES[kind]
    values: dict[str, Any] = {"node": "0x" + NODE.hex(), "seq": 3, "deadline": END, **more}
    assert membership.from_compact(signed(message).compact) == general(kind, values)


def test_sign_invite__equals_the_general_encoder() -> None:
    values = {"node": "0x" + NODE.hex(), "removals": 2, "deadline": END}
    made = membership.sign_invite(KEY, DOMAIN, NODE, 2, END)
    assert membership.from_compact(made.compact) == general(membership.INVITE_TYPE, values)


def test_invite__as_text__is_this_line() -> None:
    assert membership.invite_to_text(invite()) == GOLDEN


@given(st.integers(0, 2**40 - 1), st.binary(min_size=64, max_size=64))
def test_invite__to_text_and_back__is_the_same(deadline: int, compact: bytes) -> None:
    made = Invite(Seconds(deadline), compact)
    text = membership.invite_to_text(made)
    assert len(text) == 119 and text.isalnum() and text.islower()
    assert membership.invite_from_text(f" {text[:50].upper()}\n{text[50:]} ") == made


@given(st.integers(0, 118), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567"))
def test_invite__with_one_sign_changed__is_refused(place: int, sign: str) -> None:
    text = membership.invite_to_text(invite())
    changed = text[:place] + sign + text[place + 1 :]
    if changed == text:
        return
    try:
        read = membership.invite_from_text(changed)
    except BadMessage:
        return
    assert place == 118 and read == invite(), "only the last sign holds bits that say nothing"


@given(st.text(max_size=200))
def test_invite__of_any_text__is_read_or_refused_by_name(text: str) -> None:
    with pytest.raises(BadMessage):
        membership.invite_from_text(text)


@given(st.binary(min_size=32, max_size=32), st.integers(1, 2**255 - 1), st.sampled_from((27, 28)))
def test_compact__there_and_back__is_the_same(r: bytes, s: int, v: int) -> None:
    full = r + s.to_bytes(32, "big") + bytes([v])
    assert membership.from_compact(membership.to_compact(full)) == full


def test_compact__of_another_length__is_refused() -> None:
    with pytest.raises(BadSignature):
        membership.from_compact(bytes(65))


def test_accept__join__opens_the_slot_with_its_payee() -> None:
    for payee, kept in ((PAYEE, PAYEE), (ZERO_ADDRESS, NODE)):
        message = replace(JOIN, subject=membership.word_of(payee))
        after = membership.accept(signed(message), FRESH, DOMAIN, OPEN)
        assert after == Slot(kept, NODE, 3, Status.ACTIVE, 0, 0)


def test_accept__join_by_invite__needs_the_admitters_word_for_this_node_now() -> None:
    good = signed(JOIN, invite=invite())
    assert membership.accept(good, FRESH, DOMAIN, ADMITTED).status is Status.ACTIVE
    assert refusal(signed(JOIN), FRESH, ADMITTED) == "FLBNotInvited"
    for bad in (invite(node=NEW), invite(key=NEW_KEY), invite(removals=1)):
        assert refusal(signed(JOIN, invite=bad), FRESH, ADMITTED) == "FLBNotInvited"
    assert refusal(good, replace(FRESH, payee=PAYEE, status=Status.LEFT, removals=1), ADMITTED) == "FLBNotInvited"
    assert (
        membership.accept(good, replace(FRESH, payee=PAYEE, status=Status.LEFT), DOMAIN, ADMITTED).status
        is Status.ACTIVE
    )
    late = invite(deadline=Seconds(END - 11))
    assert refusal(signed(JOIN, invite=late), FRESH, ADMITTED) == "FLBExpired"


def test_accept__message_that_must_not_pass__is_refused_by_name() -> None:
    leave, register = MESSAGES[membership.LEAVE_TYPE][0], MESSAGES[membership.REGISTER_DATASET_TYPE][0]
    assert refusal(signed(leave), rules=replace(OPEN, now=Seconds(END + 1))) == "FLBExpired"
    assert refusal(signed(leave), replace(ACTIVE, seq=3)) == "FLBReplayed"
    assert refusal(signed(leave, NEW_KEY)) == "FLBBadSignature"
    assert refusal(signed(leave, PAYEE_KEY)) == "FLBBadSignature"
    assert refusal(signed(leave, domain=Domain(1, DOMAIN.run))) == "FLBBadSignature"
    assert refusal(SignedMessage(leave, bytes(64))) == "FLBBadSignature"
    assert refusal(signed(leave), replace(ACTIVE, status=Status.LEFT)) == "FLBNotMember"
    assert refusal(signed(replace(register, records=0))) == "FLBZero"
    assert refusal(signed(replace(register, subject=ZERO_DIGEST))) == "FLBZero"
    assert refusal(signed(JOIN)) == "FLBAlreadyMember"
    assert refusal(signed(JOIN), FRESH, replace(OPEN, finished=True)) == "FLBFinished"
    other = replace(JOIN, subject=membership.word_of(NEW))
    assert refusal(signed(other), replace(ACTIVE, status=Status.LEFT)) == "FLBPayeeFixed"


def test_accept__at_its_deadline__is_good() -> None:
    leave = signed(MESSAGES[membership.LEAVE_TYPE][0])
    assert membership.accept(leave, ACTIVE, DOMAIN, replace(OPEN, now=END)).status is Status.LEFT


def test_accept__rotate_key__by_key_or_payee__changes_who_signs() -> None:
    rotate = Message(Kind.ROTATE_KEY, NODE, 3, END, membership.word_of(NEW))
    for key in (KEY, PAYEE_KEY):
        after = membership.accept(signed(rotate, key), ACTIVE, DOMAIN, OPEN)
        assert after.key == NEW
    leave = replace(rotate, kind=Kind.LEAVE, subject=ZERO_DIGEST, seq=4)
    assert refusal(signed(leave), after) == "FLBBadSignature"
    assert membership.accept(signed(leave, NEW_KEY), after, DOMAIN, OPEN).status is Status.LEFT


def test_accept__datasets__count_registrations() -> None:
    register, revoke = MESSAGES[membership.REGISTER_DATASET_TYPE][0], MESSAGES[membership.REVOKE_DATASET_TYPE][0]
    after = membership.accept(signed(register), ACTIVE, DOMAIN, OPEN)
    assert (after.datasets, after.seq) == (1, 3)
    assert membership.accept(signed(replace(revoke, seq=9)), after, DOMAIN, OPEN) == replace(after, seq=9)


@pytest.mark.parametrize(
    "case", json.loads(VECTORS.read_text())["cases"], ids=lambda case: case["type"].partition("(")[0]
)
def test_vectors__case__gives_hash_signature_and_text(case: dict[str, Any]) -> None:
    values, key = case["message"], bytes.fromhex(case["key"][2:])
    node, end = Address(bytes.fromhex(values["node"][2:])), Seconds(values["deadline"])
    domain = Domain(case["domain"]["chainId"], Address(bytes.fromhex(case["domain"]["verifyingContract"][2:])))
    if case["type"].encode() == membership.INVITE_TYPE:
        made = membership.sign_invite(key, domain, node, values["removals"], end)
        assert membership.invite_hash(node, values["removals"], end).hex() == case["struct_hash"][2:]
        assert membership.invite_to_text(made) == case["text"] and membership.invite_from_text(case["text"]) == made
        compact = made.compact
    else:
        kinds = dict(
            zip(
                MESSAGES,
                (Kind.JOIN, Kind.LEAVE, Kind.ROTATE_KEY, Kind.REGISTER_DATASET, Kind.REVOKE_DATASET),
                strict=True,
            )
        )
        subject = values.get("payee") or values.get("key") or values.get("root") or "0x"
        value = Message(
            kinds[case["type"].encode()], node, values["seq"], end,
            Digest(bytes.fromhex(subject[2:]).rjust(32, b"\0")), int(values.get("records", 0)),
        )  # fmt: skip
        assert membership.message_hash(value).hex() == case["struct_hash"][2:]
        compact = membership.sign_message(key, domain, value).compact
    assert compact.hex() == case["compact"][2:]
    assert membership.from_compact(compact).hex() == case["signature"][2:]
