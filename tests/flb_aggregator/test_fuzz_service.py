# SPDX-License-Identifier: Apache-2.0
"""Hostile peers on a real port: raw messages, connections that stall; an honest node gets its receipt meanwhile."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flb import errors
from flb.rounds import name_of
from flb.types import Digest, Manifest
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import chunks, frames, messages
from flb_aggregator.transfers import REPLACEMENTS
from flb_node.uplink import SERVICE, Uplink
from tests.served import Served, serve
from tests.sim import key_for, manifest_for, signed, small_spec, update_bytes

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec(codec="mxint4")) as running:
        yield running


class Peer:
    """A member that sends bytes instead of messages."""

    def __init__(self, served: Served, index: int) -> None:
        opened = served.opening()
        self.served, self.member = served, opened.cohort[index]
        self.blob = update_bytes(served.spec, opened.step, self.member, opened.base)
        self.manifest: Manifest = manifest_for(served.spec, opened, self.member, self.blob)
        self.signature = signed(self.manifest, key_for(self.member))
        self.uplink: Uplink = served.uplink(self.member)
        self.header = pb.UploadUpdateRequest(
            header=pb.UploadHeader(manifest=messages.manifest_to_proto(self.manifest, self.signature))
        ).SerializeToString()

    def raw(self, parts: Iterator[bytes], method: str = "UploadUpdate", seconds: float = 10) -> tuple[str, str]:
        """gRPC status and `flb-code` of an upload of raw messages; ("OK", "") if it passed."""
        call = self.uplink.channel.stream_unary(f"/{SERVICE}/{method}")
        try:
            call(parts, metadata=self.uplink.session(), timeout=seconds)
        except grpc.RpcError as error:
            trailing: dict[str, Any] = dict(error.trailing_metadata() or ())  # type: ignore[attr-defined]
            return error.code().name, trailing.get("flb-code", "")  # type: ignore[attr-defined]
        return "OK", ""

    def deliver(self, folder: Path) -> Digest:
        """Honestly; the digest that the receipt names."""
        path = folder / self.member.node.hex()
        path.write_bytes(self.blob)
        return self.uplink.deliver(self.manifest, self.signature, path, lambda done, size: None)[0].digest

    def held(self) -> int:
        return self.served.daemon.spool.committed(name_of(self.served.opening()), self.member.node)[0]


def quiet(served: Served) -> bool:
    """No transfer and no stream is open."""
    transfers = served.service.transfers
    return transfers.up.open == 0 and not served.service.node_streams.counts and not served.service.host_streams.counts


CODES = {
    "", "bad-message", "too-large", "truncated", "digest-mismatch", "bad-container", "wrong-base", "bad-signature",
    "too-many-tries", "not-in-cohort", "unknown-run", "wrong-round", "no-dataset",
}  # fmt: skip
PART = st.one_of(
    st.binary(max_size=60),
    st.just(b""),
    st.just(b"\x12\x00"),
    st.sampled_from(("header", "first", "again", "random", "oversize", "nested")),
)


def encoded(peer: Peer, part: bytes | str) -> bytes:
    """One message of a random sequence."""
    made = {
        "header": peer.header,
        "first": frames.encode(frames.UPLOAD_DATA, peer.blob[:5000]),
        "again": frames.encode(frames.UPLOAD_DATA, peer.blob[4000:6000]),
        "random": frames.encode(frames.UPLOAD_DATA, bytes(range(1, 256)) * 20),
        "oversize": frames.encode(frames.UPLOAD_DATA, bytes(chunks.CHUNK + 1)),
        "nested": b"\x0a\x02\x0a\x00" + frames.encode(frames.UPLOAD_DATA, b"x"),
    }
    return made[part] if isinstance(part, str) else part


def test_upload__random_messages__are_refused_by_name_and_leave_nothing(served: Served, tmp_path: Path) -> None:
    hostile, honest = Peer(served, 0), Peer(served, 1)

    @settings(max_examples=max(40, settings().max_examples // 4), suppress_health_check=list(HealthCheck))
    @given(st.booleans(), st.lists(PART, max_size=5))
    def check(begun: bool, parts: list[bytes | str]) -> None:
        served.service.transfers.refused.clear()
        served.service.node_calls.buckets.clear()
        sent = [encoded(hostile, part) for part in (["header"] if begun else []) + parts]
        status, code = hostile.raw(iter(sent))
        assert status not in ("OK", "UNKNOWN", "INTERNAL", "DEADLINE_EXCEEDED") and code in CODES and code, (
            status, code, sent,
        )  # fmt: skip
        if code != "truncated":
            assert hostile.held() == 0

    check()
    served.await_true(lambda: quiet(served))
    assert honest.deliver(tmp_path) == honest.manifest.digest
    served.service.transfers.refused.clear()
    assert hostile.deliver(tmp_path) == hostile.manifest.digest
    assert list((served.folder / "spool").iterdir()) == []
    assert not any("Traceback" in line for line in served.lines)


def chunk(data: bytes) -> bytes:
    return frames.encode(frames.UPLOAD_DATA, data)


def test_upload__each_abuse__has_its_own_code(served: Served, tmp_path: Path) -> None:
    peer = Peer(served, 0)
    header, blob = peer.header, peer.blob
    foreign = blob.replace(b"lora_A.weight.scale", b"lora_A\\ud800\\nscale", 1)
    manifest = manifest_for(served.spec, served.opening(), peer.member, foreign)
    named = pb.UploadHeader(manifest=messages.manifest_to_proto(manifest, signed(manifest, key_for(peer.member))))
    cases: list[tuple[list[bytes], str]] = [
        ([header, chunk(bytes(chunks.CHUNK + 1))], "bad-message"),
        ([header, chunk(blob[:100]), header], "bad-message"),
        ([header, chunk(b"")], "bad-message"),
        ([chunk(blob), header], "bad-message"),
        ([b"\xff\xff"], "bad-message"),
        ([], "bad-message"),
        ([header, chunk(blob), b"\xff"], "bad-message"),
        ([header, chunk(blob), chunk(b"x")], "too-large"),
        ([header, chunk(blob[:-1] + b"\xfe")], "digest-mismatch"),
        ([pb.UploadUpdateRequest(header=named).SerializeToString(), chunk(foreign)], "bad-container"),
        ([header, chunk(blob[:-1])], "truncated"),
    ]
    assert len(foreign) == len(blob) and foreign != blob
    for parts, code in cases:
        served.service.transfers.refused.clear()
        assert peer.raw(iter(parts))[1] == code, parts
        served.await_true(lambda: quiet(served))
        assert peer.held() == (len(blob) - 1 if code == "truncated" else 0)
    for method in ("uploadupdate", "Nothing", "", "../GetRun", "UploadUpdate/"):
        assert peer.raw(iter([header]), method)[0] in ("UNIMPLEMENTED", "INVALID_ARGUMENT")
    assert peer.raw(iter([header, chunk(bytes(5 << 20))]))[0] == "RESOURCE_EXHAUSTED"
    served.await_true(lambda: quiet(served))
    assert peer.deliver(tmp_path) == peer.manifest.digest
    assert list((served.folder / "spool").iterdir()) == []


def test_upload__tries_used_up__harm_only_the_one_who_used_them(served: Served, tmp_path: Path) -> None:
    hostile, honest = Peer(served, 0), Peer(served, 1)
    wrong = [hostile.header, chunk(hostile.blob[:-1] + b"\xfe")]
    codes = [hostile.raw(iter(wrong))[1] for _ in range(REPLACEMENTS + 2)]
    assert codes == ["digest-mismatch"] * (REPLACEMENTS + 1) + ["too-many-tries"]
    assert honest.deliver(tmp_path) == honest.manifest.digest


@pytest.mark.parametrize("method", ["GetRun", "OpenSession", "QueryUpload", "GetRoundAudit", "WatchRounds",
                                    "DownloadBlob"])  # fmt: skip
def test_calls__bytes_that_are_no_message__end_that_call_alone(served: Served, method: str) -> None:
    uplink = Peer(served, 0).uplink
    session = uplink.session()
    for raw in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x0b" * 200, bytes(5 << 20)):
        call = uplink.channel.unary_stream(f"/{SERVICE}/{method}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(raw, metadata=session, timeout=10))
        code = dict(caught.value.trailing_metadata() or ()).get("flb-code")
        large = caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # by gRPC itself
        assert code == "bad-message" or (large and len(raw) > 4 << 20)
    assert uplink.get_run(served.daemon.spec_digest)
    served.await_true(lambda: quiet(served))


def silent(address: str, kind: str) -> socket.socket:
    """A connection that stops halfway into a handshake."""
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), 5)
    if kind == "hello":
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20))
    elif kind == "noise":
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    elif kind in ("preface", "frames"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        sock = context.wrap_socket(sock)
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        # settings, then the head of a frame that claims 16 MiB and never comes
        rest = b"\0\0\0\x04\0\0\0\0\0" + b"\xff\xff\xff\0\0\0\0\0\x01"
        sock.sendall(preface[:11] if kind == "preface" else preface + rest)
    return sock


def test_connections__half_open_and_slow__cost_a_stream_at_most_and_hold_nobody_up(
    served: Served, tmp_path: Path
) -> None:
    """Three of each kind that stall before a call, and slow senders that stall within one."""
    slow, honest, over = Peer(served, 0), Peer(served, 1), threading.Event()
    said: list[tuple[str, str]] = []

    def dribble() -> Iterator[bytes]:
        yield slow.header
        for at in range(3):
            yield chunk(slow.blob[at : at + 1])
        over.wait(30)

    with contextlib.ExitStack() as stack:
        for kind in ("silent", "hello", "noise", "preface", "frames"):
            for _ in range(3):
                stack.enter_context(contextlib.closing(silent(served.address, kind)))
        thread = threading.Thread(target=lambda: said.append(slow.raw(dribble(), seconds=20)), daemon=True)
        thread.start()
        served.await_true(lambda: slow.held() == 3)
        assert served.service.node_streams.counts == {slow.member.node: 1}
        assert not served.service.host_streams.counts, "what made no call costs no stream"
        assert served.service.transfers.up.open == 1
        assert honest.deliver(tmp_path) == honest.manifest.digest
        assert honest.uplink.get_run(served.daemon.spec_digest)
    over.set()
    thread.join(20)
    assert said == [("ABORTED", errors.Truncated.code)]
    served.await_true(lambda: quiet(served))
    assert slow.deliver(tmp_path) == slow.manifest.digest


def test_upload__many_streams_of_one_node_at_once__leave_one_whole_blob(served: Served, tmp_path: Path) -> None:
    """Streams that open together replace each other; whoever gets the receipt, the blob has its digest."""
    peer = Peer(served, 0)
    session = peer.uplink.session()
    call = peer.uplink.channel.stream_unary(f"/{SERVICE}/UploadUpdate")
    parts = [peer.header, *(chunk(peer.blob[at : at + 8192]) for at in range(0, len(peer.blob), 8192))]
    cut = parts[: len(parts) // 2]
    running = [call.future(iter(cut if index % 2 else parts), metadata=session, timeout=20) for index in range(8)]
    for one in running:
        assert one.exception() is None or one.exception().code().name in (
            "ABORTED", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "ALREADY_EXISTS",
        )  # fmt: skip
    assert peer.deliver(tmp_path) == peer.manifest.digest
    assert served.daemon.blobs.get(peer.manifest.digest) == peer.blob


@pytest.mark.parametrize("claimed", [float("nan"), float("inf"), -float("inf"), 1e300])
def test_upload__codec_error_that_is_no_number__leaves_the_report_legal_json(
    served: Served, tmp_path: Path, claimed: float
) -> None:
    peer = Peer(served, 0)
    path = tmp_path / "update"
    path.write_bytes(peer.blob)
    peer.uplink.deliver(peer.manifest, peer.signature, path, lambda done, size: None, claimed)
    assert json.dumps(served.daemon.metrics.figures, allow_nan=False)
