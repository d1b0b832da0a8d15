# SPDX-License-Identifier: Apache-2.0
"""Membership by signed message: what a node says, the admitter's invite, and the contract's rules for both.

A message names its node, a rising `seq` and a deadline, so anybody may bring it to the chain and nobody can use it
twice. Hashes are those of `contracts/FLBRun.sol`; signatures are compact, 64 bytes.
Source: https://eips.ethereum.org/EIPS/eip-712, https://eips.ethereum.org/EIPS/eip-2098.
"""

import base64
import binascii
import enum
from dataclasses import dataclass, replace

from flb import identity
from flb.errors import BadMessage, BadSignature, ContractRefused
from flb.identity import hash_struct
from flb.merkle import keccak256
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Domain, Seconds

JOIN_TYPE = b"Join(address node,address payee,uint32 seq,uint40 deadline)"
LEAVE_TYPE = b"Leave(address node,uint32 seq,uint40 deadline)"
ROTATE_KEY_TYPE = b"RotateKey(address node,address key,uint32 seq,uint40 deadline)"
REGISTER_DATASET_TYPE = b"RegisterDataset(address node,bytes32 root,uint64 records,uint32 seq,uint40 deadline)"
REVOKE_DATASET_TYPE = b"RevokeDataset(address node,bytes32 root,uint32 seq,uint40 deadline)"
INVITE_TYPE = b"Invite(address node,uint16 removals,uint40 deadline)"
COMPACT_BYTES = 64
INVITE_VERSION = 1
MOST_REMOVALS = 2**16 - 1
"""The contract's count ends here, and such a node cannot be invited any more."""


class Kind(enum.IntEnum):
    """What a message asks for; the numbers are the contract's."""

    JOIN = 0
    LEAVE = 1
    ROTATE_KEY = 2
    REGISTER_DATASET = 3
    REVOKE_DATASET = 4


class Status(enum.IntEnum):
    """Where a node stands; the numbers are the contract's."""

    NONE = 0
    ACTIVE = 1
    LEFT = 2


@dataclass(frozen=True, slots=True)
class Invite:
    """The admitter's word that one node may join until `deadline`, Unix seconds; `compact` is r ‖ vs."""

    deadline: Seconds
    compact: bytes


NO_INVITE = Invite(Seconds(0), bytes(COMPACT_BYTES))
"""What a join carries where membership is open."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a node asks for until `deadline`, Unix seconds.

    `subject` is the payee of a join or the new key, as an address in its last 20 bytes, the root of a dataset, or
    zero; `records` belongs to a registration.
    """

    kind: Kind
    node: Address
    seq: int
    deadline: Seconds
    subject: Digest = ZERO_DIGEST
    records: int = 0


@dataclass(frozen=True, slots=True)
class SignedMessage:
    """A message with its signature, r ‖ vs, and for a join the invite."""

    message: Message
    compact: bytes
    invite: Invite = NO_INVITE


@dataclass(frozen=True, slots=True)
class Slot:
    """What the contract holds of a node. `key` is the node's own address until it is rotated."""

    payee: Address
    key: Address
    seq: int
    status: Status
    datasets: int
    removals: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What else decides about a message: the admitter, zero for open membership, the run's end, and the time."""

    admitter: Address
    finished: bool
    now: Seconds


def word_of(address: Address) -> Digest:
    """An address as a message's subject."""
    return Digest(address.rjust(32, b"\0"))


def address_in(subject: Digest) -> Address:
    """The address in a message's subject."""
    return Address(subject[12:])


def message_hash(message: Message) -> Digest:
    """EIP-712 struct hash of a message."""
    m = message
    match m.kind:
        case Kind.JOIN:
            return hash_struct(JOIN_TYPE, m.node, address_in(m.subject), m.seq, m.deadline)
        case Kind.LEAVE:
            return hash_struct(LEAVE_TYPE, m.node, m.seq, m.deadline)
        case Kind.ROTATE_KEY:
            return hash_struct(ROTATE_KEY_TYPE, m.node, address_in(m.subject), m.seq, m.deadline)
        case Kind.REGISTER_DATASET:
            return hash_struct(REGISTER_DATASET_TYPE, m.node, m.subject, m.records, m.seq, m.deadline)
        case Kind.REVOKE_DATASET:
            return hash_struct(REVOKE_DATASET_TYPE, m.node, m.subject, m.seq, m.deadline)


def invite_hash(node: Address, removals: int, deadline: Seconds) -> Digest:
    """EIP-712 struct hash of an invite; `removals` is how often the node was removed before."""
    return hash_struct(INVITE_TYPE, node, removals, deadline)


def to_compact(signature: bytes) -> bytes:
    """r ‖ s ‖ v as r ‖ vs: the parity of v in the top bit of s."""
    vs = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + vs.to_bytes(32, "big")


def from_compact(compact: bytes) -> bytes:
    """r ‖ vs as r ‖ s ‖ v. Raises BadSignature for another length."""
    if len(compact) != COMPACT_BYTES:
        raise BadSignature(f"a compact signature has {len(compact)} bytes instead of 64", "give r and vs of EIP-2098")
    vs = int.from_bytes(compact[32:], "big")
    return compact[:32] + (vs & ~(1 << 255)).to_bytes(32, "big") + bytes([27 + (vs >> 255)])


def sign_message(key: bytes, domain: Domain, message: Message, invite: Invite = NO_INVITE) -> SignedMessage:
    """A message signed by a node's present key."""
    return SignedMessage(message, to_compact(identity.sign(key, domain, message_hash(message))), invite)


def sign_invite(key: bytes, domain: Domain, node: Address, removals: int, deadline: Seconds) -> Invite:
    """An invite signed by the admitter."""
    return Invite(deadline, to_compact(identity.sign(key, domain, invite_hash(node, removals, deadline))))


def invite_to_text(invite: Invite) -> str:
    """One line of 119 signs in base32: version, deadline, signature, and four bytes of keccak-256 over them.

    Safe to publish: it lets one node join, and nobody else.
    """
    body = bytes([INVITE_VERSION]) + invite.deadline.to_bytes(5, "big") + invite.compact
    return base64.b32encode(body + keccak256(body)[:4]).decode().rstrip("=").lower()


def invite_from_text(text: str) -> Invite:
    """The inverse; blanks and case do not count. Raises BadMessage for a text that was cut or mistyped."""
    plain = "".join(text.split()).upper()
    try:
        raw = base64.b32decode(plain + "=" * (-len(plain) % 8))
    except (binascii.Error, ValueError):
        raw = b""
    body, check = raw[:-4], raw[-4:]
    if len(body) != 1 + 5 + COMPACT_BYTES or keccak256(body)[:4] != check or body[0] != INVITE_VERSION:
        raise BadMessage("the invite is not whole", "copy the line that flb chain invite printed once more")
    return Invite(Seconds(int.from_bytes(body[1:6], "big")), body[6:])


def invited(node: Address, slot: Slot, invite: Invite, domain: Domain, rules: Rules) -> None:
    """Raise ContractRefused unless membership is open or the invite is good: FLBExpired, FLBNotInvited."""
    if rules.admitter == ZERO_ADDRESS:
        return
    signer = _signer(domain, invite_hash(node, slot.removals, invite.deadline), invite.compact)
    if signer != rules.admitter or slot.removals == MOST_REMOVALS:
        raise ContractRefused("FLBNotInvited", (node,), f"ask the operator for flb chain invite 0x{node.hex()}")
    if rules.now > invite.deadline:
        raise ContractRefused("FLBExpired", (invite.deadline,), "ask the operator for a new invite")


def accept(signed: SignedMessage, slot: Slot, domain: Domain, rules: Rules) -> Slot:
    """The node's slot after the message. Raises ContractRefused with the error that the contract would give."""
    m = signed.message
    if rules.now > m.deadline:
        raise ContractRefused("FLBExpired", (m.deadline,), "sign a new message; check this machine's clock")
    if m.seq <= slot.seq:
        raise ContractRefused("FLBReplayed", (m.seq, slot.seq), "sign a new message with a higher seq")
    signer = _signer(domain, message_hash(m), signed.compact)
    by_payee = m.kind is Kind.ROTATE_KEY and signer == slot.payee
    if signer == ZERO_ADDRESS or (signer != slot.key and not by_payee):
        raise ContractRefused("FLBBadSignature", (signer,), "sign with the node's key for this chain and run")
    after = replace(slot, seq=m.seq)
    match m.kind:
        case Kind.JOIN:
            return _joined(signed, after, domain, rules)
        case Kind.ROTATE_KEY:
            _require(slot.status is not Status.NONE, "FLBNotMember", m.node)
            _require(m.subject != ZERO_DIGEST, "FLBZero", "key")
            return replace(after, key=address_in(m.subject))
        case Kind.REGISTER_DATASET:
            _require(m.subject != ZERO_DIGEST, "FLBZero", "root")
            _require(m.records != 0, "FLBZero", "records")
            after = replace(after, datasets=slot.datasets + 1)
        case Kind.REVOKE_DATASET:
            _require(m.subject != ZERO_DIGEST, "FLBZero", "root")
        case Kind.LEAVE:
            after = replace(after, status=Status.LEFT)
    _require(slot.status is Status.ACTIVE, "FLBNotMember", m.node)
    return after


def _joined(signed: SignedMessage, slot: Slot, domain: Domain, rules: Rules) -> Slot:
    node, payee = signed.message.node, address_in(signed.message.subject)
    _require(not rules.finished, "FLBFinished")
    _require(slot.status is not Status.ACTIVE, "FLBAlreadyMember", node)
    if slot.status is Status.NONE:
        slot = replace(slot, payee=node if payee == ZERO_ADDRESS else payee)
    _require(payee in (ZERO_ADDRESS, slot.payee), "FLBPayeeFixed", slot.payee)
    invited(node, slot, signed.invite, domain, rules)
    return replace(slot, status=Status.ACTIVE)


def _require(fact: bool, error: str, *values: object) -> None:
    if not fact:
        raise ContractRefused(error, values)


def _signer(domain: Domain, hashed: Digest, compact: bytes) -> Address:
    """Who signed; zero for bytes that are no signature."""
    try:
        return identity.recover(domain, hashed, from_compact(compact))
    except BadSignature:
        return ZERO_ADDRESS
