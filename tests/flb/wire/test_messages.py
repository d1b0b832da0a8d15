# SPDX-License-Identifier: Apache-2.0
"""Messages: round trips, and every field's length."""

import pytest

from flb.errors import BadMessage
from flb.membership import Invite, Kind, Message, SignedMessage, word_of
from flb.types import ZERO_DIGEST, Address, Codec, Digest, Manifest, Receipt, Round, Seconds, Session
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import messages

pytestmark = pytest.mark.unit

NODE, D = Address(b"\x01" * 20), [Digest(bytes([n]) * 32) for n in range(8)]
SIGNED = b"\x07" * 65


@pytest.mark.parametrize("codec", list(Codec))
def test_manifest__round_trip(codec: Codec) -> None:
    manifest = Manifest(NODE, Round(1), D[0], D[1], D[2], D[3], D[4], D[5], 2**40, 9, codec)
    assert messages.manifest_from_proto(messages.manifest_to_proto(manifest, SIGNED)) == (manifest, SIGNED)


def test_receipt__round_trip() -> None:
    receipt = Receipt(NODE, Round(1), D[0], D[1], D[2], D[3], D[4], 9, D[5])
    assert messages.receipt_from_proto(messages.receipt_to_proto(receipt, SIGNED)) == (receipt, SIGNED)


def test_session__round_trip() -> None:
    session = Session(NODE, D[0], ZERO_DIGEST, Seconds(2**33))
    assert messages.session_from_proto(messages.session_to_proto(session, SIGNED)) == (session, SIGNED)


@pytest.mark.parametrize(
    "field", ["node", "seed", "spec", "base", "digest", "tensor_root", "dataset_root", "signature"]
)
def test_manifest__field_of_wrong_length__is_named(field: str) -> None:
    manifest = Manifest(NODE, Round(1), D[0], D[1], D[2], D[3], D[4], D[5], 1, 1, Codec.F32)
    message = messages.manifest_to_proto(manifest, SIGNED)
    setattr(message, field, b"\x01")
    with pytest.raises(BadMessage, match="1 bytes"):
        messages.manifest_from_proto(message)


def test_manifest__unknown_codec__is_refused() -> None:
    with pytest.raises(BadMessage, match="codec number 0 is unknown"):
        messages.manifest_from_proto(pb.SignedManifest())


ROOT = Digest(b"\x0d" * 32)
INVITE = Invite(Seconds(2**40 - 1), b"\x05" * 64)
MEMBERSHIP = [
    SignedMessage(Message(Kind.JOIN, NODE, 1, Seconds(9), word_of(NODE)), b"\x02" * 64, INVITE),
    SignedMessage(Message(Kind.JOIN, NODE, 2**32 - 1, Seconds(2**40 - 1)), b"\x02" * 64),
    SignedMessage(Message(Kind.LEAVE, NODE, 1, Seconds(9)), b"\x02" * 64),
    SignedMessage(Message(Kind.ROTATE_KEY, NODE, 1, Seconds(9), word_of(NODE)), b"\x02" * 64),
    SignedMessage(Message(Kind.REGISTER_DATASET, NODE, 1, Seconds(9), ROOT, 2**64 - 1), b"\x02" * 64),
    SignedMessage(Message(Kind.REVOKE_DATASET, NODE, 1, Seconds(9), ROOT), b"\x02" * 64),
]


@pytest.mark.parametrize("signed", MEMBERSHIP, ids=lambda signed: signed.message.kind.name)
def test_membership__there_and_back__is_the_same(signed: SignedMessage) -> None:
    raw = messages.membership_to_proto(signed).SerializeToString()
    assert messages.membership_from_proto(pb.MembershipMessage.FromString(raw)) == signed


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", 0), ("kind", 6), ("node", b"x"), ("subject", b""), ("subject", b"\x01" * 32), ("signature", b"\x02" * 65),
     ("deadline", 2**40)],
)  # fmt: skip
def test_membership__malformed__is_refused(field: str, value: object) -> None:
    message = messages.membership_to_proto(MEMBERSHIP[0])
    setattr(message, field, value)
    with pytest.raises(BadMessage):
        messages.membership_from_proto(message)


def test_membership__malformed_invite__is_refused() -> None:
    for invite in (pb.Invite(deadline=1, signature=b"short"), pb.Invite(deadline=2**40, signature=b"\x02" * 64)):
        message = messages.membership_to_proto(MEMBERSHIP[0])
        message.invite.CopyFrom(invite)
        with pytest.raises(BadMessage):
            messages.membership_from_proto(message)
