# SPDX-License-Identifier: Apache-2.0
"""Protobuf to values and back: the one place of the package that knows the generated classes.

Reading is strict: a field of the wrong length is a BadMessage that names it. `None` stands for an unset oneof.
"""

from flb.errors import BadMessage
from flb.membership import COMPACT_BYTES, NO_INVITE, Invite, Kind, Message, SignedMessage
from flb.types import Address, Codec, Digest, Manifest, Receipt, Round, Seconds, Session
from flb.v1 import aggregator_service_pb2 as pb

SIGNATURE_BYTES = 65
CODECS = {
    pb.CODEC_F32: Codec.F32, pb.CODEC_BF16: Codec.BF16, pb.CODEC_MXINT8: Codec.MXINT8, pb.CODEC_MXINT4: Codec.MXINT4,
}  # fmt: skip
KINDS = {
    pb.MEMBERSHIP_KIND_JOIN: Kind.JOIN, pb.MEMBERSHIP_KIND_LEAVE: Kind.LEAVE,
    pb.MEMBERSHIP_KIND_ROTATE_KEY: Kind.ROTATE_KEY, pb.MEMBERSHIP_KIND_REGISTER_DATASET: Kind.REGISTER_DATASET,
    pb.MEMBERSHIP_KIND_REVOKE_DATASET: Kind.REVOKE_DATASET,
}  # fmt: skip
assert set(KINDS.values()) == set(Kind), "every kind has a number on the wire"
assert set(CODECS.values()) == set(Codec), "every codec has a name on the wire"


def address(value: bytes, field: str) -> Address:
    """20 bytes."""
    if len(value) != 20:
        raise BadMessage(f"field {field} has {len(value)} bytes, an address has 20", "update the other side")
    return Address(value)


def digest(value: bytes, field: str) -> Digest:
    """32 bytes."""
    if len(value) != 32:
        raise BadMessage(f"field {field} has {len(value)} bytes, a digest has 32", "update the other side")
    return Digest(value)


def signature(value: bytes) -> bytes:
    """65 bytes."""
    if len(value) != SIGNATURE_BYTES:
        raise BadMessage(f"a signature has {len(value)} bytes instead of {SIGNATURE_BYTES}", "update the other side")
    return value


def compact(value: bytes) -> bytes:
    """64 bytes: r and vs of EIP-2098."""
    if len(value) != COMPACT_BYTES:
        raise BadMessage(f"a compact signature has {len(value)} bytes instead of 64", "update the other side")
    return value


def below(value: int, bits: int, field: str) -> int:
    """A number that the contract's field holds."""
    if value >= 1 << bits:
        raise BadMessage(f"field {field} does not fit into {bits} bits", "update the other side")
    return value


def manifest_to_proto(manifest: Manifest, signed: bytes) -> pb.SignedManifest:
    """A manifest with its signature."""
    m = manifest
    return pb.SignedManifest(
        node=m.node, round=m.round, seed=m.seed, spec=m.spec, base=m.base, digest=m.digest,
        tensor_root=m.tensor_root, dataset_root=m.dataset_root, size=m.size, examples=m.examples,
        codec=next(number for number, codec in CODECS.items() if codec is m.codec), signature=signed,
    )  # fmt: skip


def manifest_from_proto(message: pb.SignedManifest) -> tuple[Manifest, bytes]:
    """The inverse; the signature is not checked here."""
    if message.codec not in CODECS:
        raise BadMessage(f"codec number {message.codec} is unknown", "update the other side")
    manifest = Manifest(
        node=address(message.node, "manifest.node"),
        round=Round(message.round),
        seed=digest(message.seed, "manifest.seed"),
        spec=digest(message.spec, "manifest.spec"),
        base=digest(message.base, "manifest.base"),
        digest=digest(message.digest, "manifest.digest"),
        tensor_root=digest(message.tensor_root, "manifest.tensor_root"),
        dataset_root=digest(message.dataset_root, "manifest.dataset_root"),
        size=message.size,
        examples=message.examples,
        codec=CODECS[message.codec],
    )
    return manifest, signature(message.signature)


def receipt_to_proto(receipt: Receipt, signed: bytes) -> pb.SignedReceipt:
    """A receipt with its signature."""
    r = receipt
    return pb.SignedReceipt(
        node=r.node, round=r.round, seed=r.seed, spec=r.spec, digest=r.digest, tensor_root=r.tensor_root,
        dataset_root=r.dataset_root, weight=r.weight, manifest=r.manifest, signature=signed,
    )  # fmt: skip


def receipt_from_proto(message: pb.SignedReceipt) -> tuple[Receipt, bytes]:
    """The inverse; the signature is not checked here."""
    receipt = Receipt(
        node=address(message.node, "receipt.node"),
        round=Round(message.round),
        seed=digest(message.seed, "receipt.seed"),
        spec=digest(message.spec, "receipt.spec"),
        digest=digest(message.digest, "receipt.digest"),
        tensor_root=digest(message.tensor_root, "receipt.tensor_root"),
        dataset_root=digest(message.dataset_root, "receipt.dataset_root"),
        weight=message.weight,
        manifest=digest(message.manifest, "receipt.manifest"),
    )
    return receipt, signature(message.signature)


def session_to_proto(session: Session, signed: bytes) -> pb.SignedSession:
    """A signed challenge."""
    return pb.SignedSession(
        node=session.node, nonce=session.nonce, cert_digest=session.cert_digest, expires=session.expires,
        signature=signed,
    )  # fmt: skip


def session_from_proto(message: pb.SignedSession) -> tuple[Session, bytes]:
    """The inverse; the signature is not checked here."""
    session = Session(
        node=address(message.node, "session.node"),
        nonce=digest(message.nonce, "session.nonce"),
        cert_digest=digest(message.cert_digest, "session.cert_digest"),
        expires=Seconds(message.expires),
    )
    return session, signature(message.signature)


def membership_to_proto(signed: SignedMessage) -> pb.MembershipMessage:
    """A signed membership message; an invite only where there is one."""
    m = signed.message
    message = pb.MembershipMessage(
        kind=next(number for number, kind in KINDS.items() if kind is m.kind), node=m.node, seq=m.seq,
        deadline=m.deadline, subject=m.subject, records=m.records, signature=signed.compact,
    )  # fmt: skip
    if signed.invite != NO_INVITE:
        message.invite.CopyFrom(pb.Invite(deadline=signed.invite.deadline, signature=signed.invite.compact))
    return message


def membership_from_proto(message: pb.MembershipMessage) -> SignedMessage:
    """The inverse; the signatures are not checked here."""
    if message.kind not in KINDS:
        raise BadMessage(f"membership kind {message.kind} is unknown", "update the other side")
    kind = KINDS[message.kind]
    subject = digest(message.subject, "message.subject")
    if kind in (Kind.JOIN, Kind.ROTATE_KEY) and any(subject[:12]):
        raise BadMessage("field message.subject is no address", "leave its first twelve bytes zero")
    invite = NO_INVITE
    if message.HasField("invite"):
        deadline = below(message.invite.deadline, 40, "invite.deadline")
        invite = Invite(Seconds(deadline), compact(message.invite.signature))
    value = Message(
        kind=kind,
        node=address(message.node, "message.node"),
        seq=message.seq,
        deadline=Seconds(below(message.deadline, 40, "message.deadline")),
        subject=subject,
        records=message.records,
    )
    return SignedMessage(value, compact(message.signature), invite)
