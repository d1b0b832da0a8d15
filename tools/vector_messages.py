# SPDX-License-Identifier: Apache-2.0
"""Cases of proto/vectors/messages.json: every message that crosses the wire, with every field set once."""

import hashlib
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.message import Message

from flb.v1 import aggregator_service_pb2 as pb

WIDE = (Field.CPPTYPE_UINT64, Field.CPPTYPE_INT64)
REPEATED_FIELDS = ("admitted", "cohort", "begun", "updates", "messages", "results")


def word(name: str, length: int = 32) -> bytes:
    """Bytes that a word stands for."""
    return (hashlib.sha512(name.encode()).digest() * 2)[:length]


def fields_of(message: Message) -> dict[str, Any]:
    """The set fields: bytes as hex with 0x, 64-bit integers as decimal strings, enums by name."""

    def shown(field: Field, value: Any) -> Any:
        if field.message_type is not None:
            return fields_of(value)
        if field.enum_type is not None:
            return field.enum_type.values_by_number[value].name
        if isinstance(value, bytes):
            return "0x" + value.hex()
        return str(value) if field.cpp_type in WIDE else value

    return {
        field.name: [shown(field, item) for item in value] if field.name in REPEATED_FIELDS else shown(field, value)
        for field, value in message.ListFields()
    }


def messages() -> list[Message]:
    """One or more of every kind."""
    node, seed, update, spec = word("node", 20), word("seed"), word("update"), word("spec")
    session = pb.SignedSession(
        node=node, nonce=word("nonce"), cert_digest=word("certificate"), expires=1_800_000_000, signature=word("s", 65)
    )
    manifest = pb.SignedManifest(
        node=node, round=3, seed=seed, spec=spec, base=word("base"), digest=update, tensor_root=bytes(32),
        dataset_root=word("dataset"), size=2**40, examples=7, codec=pb.CODEC_BF16, signature=word("m", 65),
    )  # fmt: skip
    receipt = pb.SignedReceipt(
        node=node, round=3, seed=seed, spec=spec, digest=update, tensor_root=bytes(32), dataset_root=word("dataset"),
        weight=2**63, manifest=word("manifest"), signature=word("r", 65),
    )  # fmt: skip
    state = pb.RoundState(
        phase=pb.ROUND_PHASE_INTAKE, round=3, step=2, seed=seed, deadline=1_800_000_000, base=word("base"),
        block_number=17, block_hash=word("block"), admitted=[node], cohort=[node, word("other", 20)], begun=[node],
        record=word("record"),
    )  # fmt: skip
    run = word("run", 20)
    joins = pb.MembershipMessage(
        kind=pb.MEMBERSHIP_KIND_JOIN, node=node, seq=3, deadline=1_800_000_000, subject=bytes(12) + word("payee", 20),
        signature=word("j", 64), invite=pb.Invite(deadline=1_800_000_000, signature=word("i", 64)),
    )  # fmt: skip
    registers = pb.MembershipMessage(
        kind=pb.MEMBERSHIP_KIND_REGISTER_DATASET, node=node, seq=4, deadline=2**40 - 1, subject=word("dataset"),
        records=2**63, signature=word("d", 64),
    )  # fmt: skip
    return [
        pb.GetRunRequest(),
        pb.GetRunResponse(spec=b"{}", chain_id=31337, run=run, signature=word("g", 65)),
        pb.OpenSessionRequest(node=node, chain_id=31337, run=run),
        pb.OpenSessionRequest(session=session, chain_id=31337, run=run),
        pb.OpenSessionResponse(challenge=pb.Challenge(nonce=word("nonce"), expires=1_800_000_000)),
        pb.OpenSessionResponse(token="token"),
        pb.WatchRoundsRequest(),
        state,
        pb.WatchRoundsResponse(state=state.SerializeToString(deterministic=True), signature=word("w", 65)),
        pb.DownloadBlobRequest(digest=update, offset=2**33),
        pb.DownloadBlobRequest(digest=update),
        pb.DownloadBlobResponse(data=b"data", size=2**40),
        pb.QueryUploadRequest(round=3, seed=seed),
        pb.QueryUploadResponse(committed=100, digest=update),
        pb.QueryUploadResponse(receipt=receipt),
        pb.UploadUpdateRequest(header=pb.UploadHeader(manifest=manifest, offset=100, codec_error=0.0078125)),
        pb.UploadUpdateRequest(data=b"data"),
        pb.UploadUpdateResponse(receipt=receipt),
        pb.RelayRequest(chain_id=31337, run=run, messages=[joins, registers]),
        pb.RelayResponse(
            results=[
                pb.RelayResult(state=pb.RELAY_STATE_MINED, tx=word("tx")),
                pb.RelayResult(state=pb.RELAY_STATE_REFUSED, error="FLBReplayed", reason="a sentence"),
            ]
        ),
        pb.GetRoundAuditRequest(round=3),
        pb.GetRoundAuditResponse(record=word("record"), adapter=word("adapter"), updates=[update, word("update 2")]),
    ]


def cases() -> list[dict[str, Any]]:
    """Message by message."""
    return [
        {
            "message": message.DESCRIPTOR.name,
            "fields": fields_of(message),
            "serialized": "0x" + message.SerializeToString(deterministic=True).hex(),
        }
        for message in messages()
    ]
