# SPDX-License-Identifier: Apache-2.0
"""The protocol over a real port: every refusal with its status and code, and what survives it."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flb import errors
from flb.errors import FLBError
from flb.merkle import keccak256
from flb.types import Digest, Manifest, Member, Round
from flb.v1 import aggregator_service_pb2 as pb
from flb.v1 import aggregator_service_pb2_grpc as pb_grpc
from flb.wire import messages
from flb_node.uplink import Uplink, translated
from tests.served import Served, serve
from tests.sim import key_for, key_of, manifest_for, signed, small_spec, update_bytes

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec(codec="f32")) as running:
        yield running


def update(served: Served, member: Member, **changes: Any) -> tuple[Manifest, bytes]:
    opened = served.opening()
    blob = update_bytes(served.spec, opened.step, member, opened.base)
    manifest = manifest_for(served.spec, opened, member, blob)
    return dataclasses.replace(manifest, **changes), blob


def deliver(uplink: Uplink, manifest: Manifest, blob: bytes, folder: Path, key: bytes) -> Any:
    path = folder / "update"
    path.write_bytes(blob)
    return uplink.deliver(manifest, signed(manifest, key), path, lambda done, size: None)


def stream(uplink: Uplink, manifest: Manifest, parts: list[bytes], key: bytes, offset: int = 0) -> Any:
    """An upload message by message, as a careless client would send it."""
    header = pb.UploadHeader(manifest=messages.manifest_to_proto(manifest, signed(manifest, key)), offset=offset)
    requests = [pb.UploadUpdateRequest(header=header), *(pb.UploadUpdateRequest(data=part) for part in parts)]
    with translated():
        return uplink.stub.UploadUpdate(iter(requests), metadata=uplink.session())


def leftovers(served: Served) -> list[str]:
    return [path.name for path in (served.folder / "spool").iterdir()]


def test_upload__honest__gets_a_receipt_and_a_repeat_gets_the_same(served: Served, tmp_path: Path) -> None:
    member = served.opening().cohort[0]
    manifest, blob = update(served, member)
    uplink = served.uplink(member)
    first = deliver(uplink, manifest, blob, tmp_path, key_for(member))
    assert first == deliver(uplink, manifest, blob, tmp_path, key_for(member))
    assert first[0].weight == 100 and leftovers(served) == []
    header_only = stream(uplink, manifest, [], key_for(member)).receipt
    assert messages.receipt_from_proto(header_only) == first


CASES: list[tuple[dict[str, Any], type[FLBError], str]] = [
    ({"spec": Digest(b"\x09" * 32)}, errors.UnknownRun, "NOT_FOUND"),
    ({"round": Round(7)}, errors.WrongRound, "FAILED_PRECONDITION"),
    ({"seed": Digest(b"\x09" * 32)}, errors.WrongRound, "FAILED_PRECONDITION"),
    ({"size": 1 << 40}, errors.TooLarge, "RESOURCE_EXHAUSTED"),
    ({"base": Digest(b"\x09" * 32)}, errors.WrongBase, "FAILED_PRECONDITION"),
    ({"dataset_root": Digest(b"\x09" * 32)}, errors.NoDataset, "FAILED_PRECONDITION"),
]


@pytest.mark.parametrize(("changes", "error", "status"), CASES)
def test_upload__wrong_manifest__is_refused_before_the_first_byte(
    served: Served, changes: dict[str, Any], error: type[FLBError], status: str
) -> None:
    member = served.opening().cohort[0]
    manifest, _ = update(served, member, **changes)
    with pytest.raises(error) as caught:
        stream(served.uplink(member), manifest, [], key_for(member))
    assert caught.value.__cause__.code() is getattr(grpc.StatusCode, status)  # type: ignore[union-attr]
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert leftovers(served) == [] and served.admitted() == {}


def test_upload__signed_by_another_key__is_refused(served: Served) -> None:
    member = served.opening().cohort[0]
    manifest, blob = update(served, member)
    with pytest.raises(errors.BadSignature):
        stream(served.uplink(member), manifest, [blob], key_of(40))
    assert leftovers(served) == []


def test_upload__for_another_node__is_refused(served: Served) -> None:
    one, two = served.opening().cohort[:2]
    manifest, blob = update(served, two)
    with pytest.raises(errors.BadSignature, match="another node than the session"):
        stream(served.uplink(one), manifest, [blob], key_for(two))


def test_session__of_a_stranger__is_refused(served: Served) -> None:
    from flb import identity

    key = key_of(50)
    node = identity.address_of(key)
    stranger = Member(node, node, node, Digest(keccak256(node)), 5)
    uplink = served.uplink(served.opening().cohort[0])
    uplink.node, uplink.key = stranger.node, key
    with pytest.raises(errors.NotInCohort):
        uplink.session()


@pytest.mark.parametrize("call", ["QueryUpload", "WatchRounds", "UploadUpdate"])
def test_call__without_a_session__is_refused(served: Served, call: str) -> None:
    stub = pb_grpc.AggregatorServiceStub(served.channel())
    with pytest.raises(errors.BadSignature, match="needs a session"), translated():
        if call == "QueryUpload":
            stub.QueryUpload(pb.QueryUploadRequest(round=1, seed=bytes(32)))
        elif call == "WatchRounds":
            next(iter(stub.WatchRounds(pb.WatchRoundsRequest())))
        else:
            stub.UploadUpdate(iter([pb.UploadUpdateRequest(data=b"x")]))


def test_upload__cut_in_the_middle__goes_on_at_the_committed_offset(served: Served, tmp_path: Path) -> None:
    member = served.opening().cohort[0]
    manifest, blob = update(served, member)
    uplink = served.uplink(member)
    with pytest.raises(errors.Truncated, match="ended at byte 100000 of"):
        stream(uplink, manifest, [blob[:100_000]], key_for(member))
    query = pb.QueryUploadRequest(round=manifest.round, seed=manifest.seed)
    state = uplink.stub.QueryUpload(query, metadata=uplink.session())
    assert (state.committed, state.digest) == (100_000, manifest.digest)
    sent: list[int] = []
    path = tmp_path / "update"
    path.write_bytes(blob)
    uplink.deliver(manifest, signed(manifest, key_for(member)), path, lambda done, size: sent.append(done))
    assert sent == [len(blob)], "only what was missing is sent"


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda blob: blob[:-4] + b"\x00\x00\xc0\x7f", errors.NotFinite),
        (lambda blob: blob[:-4] + b"\x00\x00\xa0\x40", errors.ValueTooLarge),
        (lambda blob: blob.replace(b"lora_A", b"lora_C", 1), errors.BadContainer),
        (lambda blob: (1 << 40).to_bytes(8, "little") + blob[8:], errors.BadContainer),
    ],
)
def test_upload__bad_bytes__are_refused_and_the_round_lives_on(
    served: Served, tmp_path: Path, spoil: Any, error: type[FLBError]
) -> None:
    opened = served.opening()
    member = opened.cohort[0]
    good_manifest, good = update(served, member)
    bad = spoil(good)
    manifest = manifest_for(served.spec, opened, member, bad)
    uplink = served.uplink(member)
    with pytest.raises(error):
        deliver(uplink, manifest, bad, tmp_path, key_for(member))
    assert leftovers(served) == [] and not served.daemon.blobs.has(manifest.digest)
    receipt, _ = deliver(uplink, good_manifest, good, tmp_path, key_for(member))
    assert receipt.digest == good_manifest.digest


def test_upload__three_replacements_refused_too__use_up_the_tries(served: Served, tmp_path: Path) -> None:
    opened = served.opening()
    member = opened.cohort[0]
    _, good = update(served, member)
    uplink = served.uplink(member)
    for number in range(4):
        bad = good[:-8] + bytes([number]) * 4 + b"\x00\x00\xc0\x7f"
        with pytest.raises(errors.NotFinite):
            deliver(uplink, manifest_for(served.spec, opened, member, bad), bad, tmp_path, key_for(member))
    with pytest.raises(errors.TooManyTries):
        deliver(uplink, manifest_for(served.spec, opened, member, good), good, tmp_path, key_for(member))


def test_upload__another_digest_after_a_receipt__already_exists_with_the_receipt(
    served: Served, tmp_path: Path
) -> None:
    opened = served.opening()
    member = opened.cohort[0]
    manifest, blob = update(served, member)
    uplink = served.uplink(member)
    deliver(uplink, manifest, blob, tmp_path, key_for(member))
    other = blob[:-4] + bytes(4)
    with pytest.raises(errors.AlreadyAdmitted) as caught:
        stream(uplink, manifest_for(served.spec, opened, member, other), [other], key_for(member))
    trailing = dict(caught.value.__cause__.trailing_metadata())  # type: ignore[union-attr]
    held = messages.receipt_from_proto(pb.SignedReceipt.FromString(trailing["flb-receipt-bin"]))
    assert held[0].digest == manifest.digest


def test_download__what_is_not_listed__is_the_same_as_unknown(served: Served, tmp_path: Path) -> None:
    member = served.opening().cohort[0]
    manifest, blob = update(served, member)
    uplink = served.uplink(member)
    deliver(uplink, manifest, blob, tmp_path, key_for(member))
    store = served.daemon.blobs.__class__(tmp_path / "mine")
    said = set()
    for digest in (manifest.digest, Digest(b"\x09" * 32)):
        with pytest.raises(errors.NotListed) as caught:
            uplink.download(digest, store)
        said.add(str(caught.value))
    assert len(said) == 1 and list(store.folder.iterdir()) == []


def test_watch__announces_the_round_and_every_admission(served: Served, tmp_path: Path) -> None:
    member, other = served.opening().cohort[:2]
    uplink = served.uplink(other)
    stream = uplink.stub.WatchRounds(pb.WatchRoundsRequest(), metadata=uplink.session())
    watching = (pb.RoundState.FromString(message.state) for message in stream)
    first = next(watching)
    assert (first.phase, first.round, first.step) == (pb.ROUND_PHASE_INTAKE, 1, 1)
    manifest, blob = update(served, member)
    deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
    while member.node not in next(watching).admitted:
        pass


def test_get_run__spec_that_is_not_the_chain_s__is_an_impostor(served: Served) -> None:
    uplink = served.uplink(served.opening().cohort[0])
    assert uplink.get_run(served.daemon.spec_digest) == served.spec.encode()
    with pytest.raises(errors.Impostor, match="not the one on chain"):
        uplink.get_run(Digest(b"\x09" * 32))


def test_health_and_reflection__answer_without_a_session(served: Served) -> None:
    stub = health_pb2_grpc.HealthStub(served.channel())
    for name in ("", "flb.v1.AggregatorService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
