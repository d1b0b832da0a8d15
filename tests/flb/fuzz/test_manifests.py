# SPDX-License-Identifier: Apache-2.0
"""Hostile messages: manifests field by field, random bytes for every message, records and run specs nearly right."""

import dataclasses
import struct
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from flb import admission, errors, identity, records
from flb import spec as specs
from flb.merkle import keccak256
from flb.payouts import Standing
from flb.types import ZERO_DIGEST, Admitted, Digest, Step
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import frames, messages
from tests.hostile import MIB, mutated, mutated_json, peak_of
from tests.sim import DOMAIN, key_for, manifest_for, members, opening, signed, small_spec, update_bytes

pytestmark = pytest.mark.unit

SPEC = small_spec(codec="f32")
OPENING = opening()
MEMBER = OPENING.cohort[0]
BLOB = update_bytes(SPEC, Step(1), MEMBER, OPENING.base)
MANIFEST = manifest_for(SPEC, OPENING, MEMBER, BLOB)
LEGAL = messages.manifest_to_proto(MANIFEST, signed(MANIFEST, key_for(MEMBER)))
SMALL = 64 << 10
"""What a message of a kilobyte may cost."""
MANIFEST_FAULTS = (
    errors.UnknownRun, errors.WrongRound, errors.NotInCohort, errors.BadSignature, errors.TooLarge,
    errors.AlreadyAdmitted, errors.BadContainer, errors.WrongBase, errors.BadMessage, errors.NoDataset,
)  # fmt: skip
"""The table of docs/protocol.md, before the first byte."""
REQUESTS = (
    pb.GetRunRequest, pb.OpenSessionRequest, pb.WatchRoundsRequest, pb.DownloadBlobRequest, pb.QueryUploadRequest,
    pb.UploadUpdateRequest, pb.GetRoundAuditRequest,
)  # fmt: skip
ANSWERS = (
    pb.GetRunResponse, pb.OpenSessionResponse, pb.WatchRoundsResponse, pb.RoundState, pb.DownloadBlobResponse,
    pb.QueryUploadResponse, pb.UploadUpdateResponse, pb.GetRoundAuditResponse,
)  # fmt: skip
READERS: tuple[tuple[type[Message], Any], ...] = (
    (pb.SignedManifest, messages.manifest_from_proto),
    (pb.SignedReceipt, messages.receipt_from_proto),
    (pb.SignedSession, messages.session_from_proto),
)


def checked(message: pb.SignedManifest, admitted: Admitted | None = None) -> errors.PeerFault | None:
    """The fault of a manifest, None for one that passes; any other exception is the test's failure."""
    try:
        manifest, signature = messages.manifest_from_proto(message)
        admission.check_manifest(
            manifest, signature, spec=SPEC, spec_digest=specs.digest_of(SPEC.encode()), domain=DOMAIN,
            opening=OPENING, admitted=admitted,
        )  # fmt: skip
    except errors.PeerFault as error:
        fault = error
    else:
        return None
    assert type(fault) in MANIFEST_FAULTS
    assert str(fault).isprintable()
    return fault


def test_check_manifest__honest__passes_and_a_byte_too_many_does_not() -> None:
    assert checked(LEGAL) is None
    longer = manifest_for(SPEC, OPENING, MEMBER, BLOB + b"\0")
    fault = checked(messages.manifest_to_proto(longer, signed(longer, key_for(MEMBER))))
    assert type(fault) is errors.TooLarge


BYTES = [name for name, field in pb.SignedManifest.DESCRIPTOR.fields_by_name.items() if field.type == field.TYPE_BYTES]
HUGE = st.sampled_from((0, 1, 2**31 - 1, 2**31, 2**32 - 1))
WIDE = st.one_of(HUGE, st.sampled_from((2**63 - 1, 2**63, 2**64 - 1)))
WRONG = {
    **dict.fromkeys(BYTES, st.one_of(st.binary(max_size=80), st.sampled_from((bytes(20), bytes(32), bytes(65))))),
    "round": HUGE,
    "size": WIDE,
    "examples": WIDE,
    "codec": st.integers(-(2**31), 2**31 - 1),
}


@given(st.fixed_dictionaries({}, optional=WRONG))  # type: ignore[arg-type]
def test_manifest__any_fields_not_signed_anew__are_refused_unless_nothing_changed(fields: dict[str, Any]) -> None:
    message = pb.SignedManifest()
    message.CopyFrom(LEGAL)
    for name, value in fields.items():
        setattr(message, name, value)
    assert (checked(message) is None) == (message == LEGAL)


@given(st.fixed_dictionaries({}, optional={name: WRONG[name] for name in ("size", "examples", "round")}))
def test_manifest__absurd_numbers_signed_by_the_member__are_refused_or_counted_up_to_the_cap(
    fields: dict[str, int],
) -> None:
    manifest = dataclasses.replace(MANIFEST, **fields)  # type: ignore[arg-type]
    message = messages.manifest_to_proto(manifest, signed(manifest, key_for(MEMBER)))
    if checked(message) is None:
        assert manifest.size == len(BLOB) and manifest.round == OPENING.round
        assert 1 <= admission.weight(SPEC, manifest, MEMBER) <= MEMBER.records
    else:
        assert manifest != MANIFEST


@given(st.binary(min_size=65, max_size=65), st.sampled_from((27, 28)))
def test_manifest__any_signature__is_by_another_key(raw: bytes, v: int) -> None:
    for signature in (raw, raw[:64] + bytes([v]), bytes(64) + bytes([v])):
        message = pb.SignedManifest()
        message.CopyFrom(LEGAL)
        message.signature = signature
        assert type(checked(message)) is errors.BadSignature


@given(mutated(LEGAL.SerializeToString()))
def test_manifest__mutated_bytes__are_refused_unless_they_mean_the_same(raw: bytes) -> None:
    try:
        message = pb.SignedManifest.FromString(raw)
    except DecodeError:
        return
    if checked(message) is None:
        assert messages.manifest_from_proto(message) == messages.manifest_from_proto(LEGAL)


@given(st.binary(max_size=1024))
def test_parsers__random_bytes__are_a_message_or_a_decode_error_in_bounded_memory(raw: bytes) -> None:
    def parse() -> None:
        for kind in (*REQUESTS, *ANSWERS, *(kind for kind, _ in READERS)):
            try:
                kind.FromString(raw)
            except DecodeError:
                continue

    assert peak_of(parse) < SMALL


@given(st.sampled_from(READERS), st.data())
def test_readers__fields_of_any_length__are_values_or_a_bad_message(
    pair: tuple[type[Message], Any], data: st.DataObject
) -> None:
    kind, read = pair
    message = kind()
    for name, field in kind.DESCRIPTOR.fields_by_name.items():
        known = {field.TYPE_BYTES: st.binary(max_size=70), field.TYPE_UINT32: HUGE, field.TYPE_UINT64: WIDE}
        value = data.draw(st.one_of(st.none(), known.get(field.type, WRONG["codec"])))
        if value is not None:
            setattr(message, name, value)
    try:
        value, signature = read(message)
    except errors.BadMessage:
        return
    assert len(signature) == messages.SIGNATURE_BYTES and len(value.node) == 20
    hashes = {
        pb.SignedManifest: identity.manifest_hash,
        pb.SignedReceipt: identity.receipt_hash,
        pb.SignedSession: identity.session_hash,
    }
    assert len(hashes[kind](value)) == 32  # type: ignore[index,operator]


@given(st.integers(0, 2), st.binary(max_size=20), st.sampled_from((0, 1, 127, 128, 2**14, 2**31, 2**35 - 1, 2**63)))
def test_frames__any_bytes__are_read_as_the_generated_class_reads_them(pad: int, data: bytes, claimed: int) -> None:
    for length in (len(data), claimed):
        varint = bytearray()
        while length > 0x7F:
            varint.append(length & 0x7F | 0x80)
            length >>= 7
        varint += bytes([length | 0x80]) + b"\x80" * (pad - 1) + b"\0" if pad else bytes([length])
        for tag in (frames.UPLOAD_DATA, 0x0A, 0x1A):
            message = bytes([tag]) + bytes(varint) + data
            view = frames.decode(frames.UPLOAD_DATA, message)
            if view is not None:
                assert bytes(view) == pb.UploadUpdateRequest.FromString(message).data


def record() -> records.Record:
    """A legal record of two updates."""
    admitted = []
    for member in members(3)[:2]:
        manifest = manifest_for(SPEC, OPENING, member, member.node)
        admitted.append(Admitted(manifest, signed(manifest, key_for(member)), 50, b"\x11" * 65))
    closing = records.Closing(tuple(admitted), (), (members(3)[2].node,))
    rows = tuple(Standing(item.node, 1, 2**70, 2**255) for item in admitted)
    return records.make(
        DOMAIN,
        Digest(b"\x01" * 32),
        OPENING,
        ZERO_DIGEST,
        closing,
        Digest(keccak256(b"a")),
        standings=rows,
        round_payout=1,
    )


RECORD = records.encode(record())


def read_record(blob: bytes) -> None:
    """A record that is read can be written and hashed: an auditor does both."""
    try:
        found = records.decode(blob)
    except errors.BadMessage:
        return
    assert records.encode(found) == blob
    records.roll_hash(records.roll_of(found, blob), found.previous, found.seed, found.deadline)
    assert all(len(leaf) == 32 for leaf in records.update_leaves(found.closing))
    assert all(len(identity.manifest_hash(item.manifest)) == 32 for item in found.closing.admitted)


@given(st.one_of(mutated_json(RECORD), mutated(RECORD)))
def test_decode_record__mutated__is_a_record_or_a_bad_message(blob: bytes) -> None:
    read_record(blob)


@pytest.mark.parametrize("change", [(b'"weight":50', b'"weight":-5'), (b'"late":[]', b'"late":["0x00"]'),
                                    (b'"seed":"0x', b'"seed":"0x00')])  # fmt: skip
def test_decode_record__canonical_but_impossible__is_a_bad_message(change: tuple[bytes, bytes]) -> None:
    assert change[0] in RECORD
    with pytest.raises(errors.BadMessage):
        records.decode(RECORD.replace(*change))


def read_spec(encoded: bytes) -> None:
    """A spec that is read has a layout and fits the arithmetic."""
    said: list[str] = []
    try:
        spec = specs.decode(encoded)
    except (errors.BadMessage, errors.Refused) as error:
        said.append(str(error))
    if said:
        assert said[0].encode()  # half a surrogate pair has no bytes
        return
    assert spec.encode() == encoded
    assert admission.layout_of(spec, Step(1)).size > 0


@given(st.one_of(mutated_json(SPEC.encode()), mutated(SPEC.encode())))
def test_decode_spec__mutated__is_a_spec_a_bad_message_or_refused(encoded: bytes) -> None:
    read_spec(encoded)


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"":', b'"', b"1", b"\xff", struct.pack("<Q", 1)])
def test_decode__bombs__are_bad_messages_in_bounded_memory(unit: bytes) -> None:
    bomb = unit * (MIB // len(unit))
    for decode in (specs.decode, records.decode):

        def read(decode: Any = decode) -> None:
            with pytest.raises(errors.BadMessage):
                decode(bomb)

        assert peak_of(read) < 8 * MIB


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (b'"max_cohort":4096', b'"max_cohort":0', errors.Refused),
        (b'"dropout":0', b'"dropout":1' + b"0" * 400, errors.BadMessage),
        (b'"dropout":0', b'"dropout":NaN', errors.BadMessage),
        (b'"seed":0', b'"seed":9007199254740993', errors.BadMessage),
        (b'"name":"tiny"', b'"name":"\\ud800"', errors.BadMessage),
        (b"[2,40000]", b"[-2,40000]", errors.Refused),
        (b"[2,40000]", b"[0]", errors.Refused),
    ],
)
def test_decode_spec__numbers_that_are_none__have_their_own_fault(old: bytes, new: bytes, error: type) -> None:
    assert old in SPEC.encode()
    with pytest.raises(error):
        specs.decode(SPEC.encode().replace(old, new))
