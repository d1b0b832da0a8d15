# SPDX-License-Identifier: Apache-2.0
"""Bulk streams over a real port: stalled peers, limits, a full disk, and what comes after them."""

import dataclasses
import errno
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from flb.errors import AggregatorUnavailable, Busy, Truncated
from flb.rounds import Phase, name_of
from flb.store import BlobStore
from flb.types import Digest
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import messages
from flb_aggregator.intake import Upload
from flb_aggregator.limits import Held, Rate, Turns
from flb_node.uplink import Uplink, translated
from tests.served import Served, serve
from tests.sim import key_for, manifest_for, signed, small_spec, update_bytes

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec(codec="f32")) as running:
        yield running


class Sender:
    """A node that sends message by message."""

    def __init__(self, served: Served, index: int = 0) -> None:
        opened = served.opening()
        self.served, self.member, self.name = served, opened.cohort[index], name_of(opened)
        self.blob = update_bytes(served.spec, opened.step, self.member, opened.base)
        self.manifest = manifest_for(served.spec, opened, self.member, self.blob)
        self.signature = signed(self.manifest, key_for(self.member))
        self.uplink = served.uplink(self.member)

    def header(self, offset: int = 0) -> pb.UploadUpdateRequest:
        manifest = messages.manifest_to_proto(self.manifest, self.signature)
        return pb.UploadUpdateRequest(header=pb.UploadHeader(manifest=manifest, offset=offset))

    def send(self, requests: Iterator[pb.UploadUpdateRequest]) -> Any:
        with translated():
            return self.uplink.stub.UploadUpdate(requests, metadata=self.uplink.session(), timeout=20)

    def deliver(self, folder: Path) -> Any:
        path = folder / "update"
        path.write_bytes(self.blob)
        return self.uplink.deliver(self.manifest, self.signature, path, lambda done, size: None)

    def held(self) -> int:
        return self.served.daemon.spool.committed(self.name, self.member.node)[0]


def stalling(sender: Sender, parts: list[bytes], over: threading.Event) -> Iterator[pb.UploadUpdateRequest]:
    """A header, some chunks, then silence with the stream open."""
    yield sender.header()
    for part in parts:
        yield pb.UploadUpdateRequest(data=part)
    over.wait(30)


def test_upload__stream_that_stalls__is_dropped_and_resumes_where_it_was(served: Served, tmp_path: Path) -> None:
    served.service.transfers.idle_seconds = 0.3
    sender, over = Sender(served), threading.Event()
    with pytest.raises(Truncated, match="no progress for"):
        sender.send(stalling(sender, [sender.blob[:5000]], over))
    over.set()
    assert sender.held() == 5000
    receipt, _ = sender.deliver(tmp_path)
    assert receipt.digest == sender.manifest.digest
    served.await_true(lambda: served.service.transfers.up.open == 0)


def test_upload__no_header_at_all__is_dropped(served: Served) -> None:
    served.service.transfers.idle_seconds = 0.3
    sender, over = Sender(served), threading.Event()

    def silence() -> Iterator[pb.UploadUpdateRequest]:
        over.wait(30)
        yield from ()

    with pytest.raises(Truncated, match="no progress for"):
        sender.send(silence())
    over.set()
    served.await_true(lambda: sender.member.node not in served.service.node_streams.counts)


def test_upload__stalled_streams__hold_nobody_up(served: Served, tmp_path: Path) -> None:
    """Slow-loris: every turn is lent, and an honest node gets through while they hang."""
    served.service.transfers.up = Turns(active=1, waiting=2)
    over = threading.Event()
    slow = [Sender(served, index) for index in (0, 1)]
    threads = []
    for sender in slow:
        requests = stalling(sender, [sender.blob[:1000]], over)

        def hang(sender: Sender = sender, requests: Iterator[pb.UploadUpdateRequest] = requests) -> None:
            with pytest.raises(Truncated):
                sender.send(requests)

        threads.append(threading.Thread(target=hang, daemon=True))
        threads[-1].start()
        served.await_true(lambda sender=sender: sender.held() == 1000)  # type: ignore[misc]
    honest = Sender(served, 2)
    honest.deliver(tmp_path)
    assert honest.member.node in served.admitted()
    over.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_upload__queue_full__is_told_when_to_come_back_and_gets_in_then(served: Served, tmp_path: Path) -> None:
    sender = Sender(served)
    served.service.transfers.up = Turns(active=1, waiting=0)
    with pytest.raises(Busy, match="transfers are open") as caught:
        sender.deliver(tmp_path)
    assert caught.value.retry_seconds == 0.25
    served.service.transfers.up = Turns()
    sender.deliver(tmp_path)
    assert sender.member.node in served.admitted()


def test_upload__disk_too_full__is_refused_before_the_first_byte(served: Served, tmp_path: Path) -> None:
    sender, spool = Sender(served), served.daemon.spool
    served.daemon.spool = dataclasses.replace(spool, reserve=1 << 60)
    with pytest.raises(Busy, match="disk is full"):
        sender.deliver(tmp_path)
    assert list(spool.folder.iterdir()) == []
    served.daemon.spool = spool
    sender.deliver(tmp_path)


def test_upload__disk_fills_on_the_way__keeps_what_is_held(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, write = Sender(served), Upload.write

    def full(upload: Upload, data: bytes) -> None:
        if upload.receiver.held >= 1000:
            raise OSError(errno.ENOSPC, "no space")
        write(upload, data)

    monkeypatch.setattr(Upload, "write", full)
    parts = [sender.blob[:1000], sender.blob[1000:2000]]
    with pytest.raises(Busy, match="disk is full"):
        sender.send(iter([sender.header(), *(pb.UploadUpdateRequest(data=part) for part in parts)]))
    assert sender.held() == 1000
    monkeypatch.undo()
    sender.deliver(tmp_path)


def test_journal__disk_full__delays_and_loses_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No receipt leaves while the journal has no room; the same update gets it once there is room again."""
    sender, append = Sender(served), served.daemon.journal.append

    def full(*facts: Any) -> None:
        raise OSError(errno.ENOSPC, "no room")

    served.daemon.journal.append = full  # type: ignore[method-assign]
    with pytest.raises(Busy, match="disk is full"):
        sender.deliver(tmp_path)
    assert served.daemon.state.phase is Phase.INTAKE and sender.member.node not in served.admitted()
    served.daemon.journal.append = append  # type: ignore[method-assign]
    receipt, _ = sender.deliver(tmp_path)
    assert receipt.digest == sender.manifest.digest


def test_upload__disk_broken__is_the_aggregators_trouble_not_the_nodes(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(served)

    def broken(upload: Upload, data: bytes) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(Upload, "write", broken)
    with pytest.raises(AggregatorUnavailable, match="in trouble"):
        sender.deliver(tmp_path)
    monkeypatch.undo()
    sender.deliver(tmp_path)


def test_download__peer_that_reads_nothing__is_dropped(served: Served) -> None:
    served.service.transfers.idle_seconds = 0.3
    big = served.daemon.blobs.put(bytes(8 << 20))
    served.service.listed_path = lambda raw, member: served.daemon.blobs.path(big)  # type: ignore[method-assign]
    uplink = Sender(served).uplink
    call = uplink.stub.DownloadBlob(pb.DownloadBlobRequest(digest=big), metadata=uplink.session())
    next(call)
    served.await_true(lambda: served.service.transfers.down.open == 0)
    with pytest.raises(grpc.RpcError):
        list(call)


def test_download__limits__are_told_to_the_node(served: Served, tmp_path: Path) -> None:
    served.service.transfers.down = Turns(active=1, waiting=0)
    store = BlobStore(tmp_path / "blobs")
    with pytest.raises(Busy):
        Sender(served).uplink.download(Digest(bytes.fromhex(served.spec.adapter)), store)
    served.service.transfers.down = Turns()
    Sender(served).uplink.download(Digest(bytes.fromhex(served.spec.adapter)), store)


def test_download__queue_full__reads_nothing(served: Served, tmp_path: Path) -> None:
    transfers, digest = served.service.transfers, Digest(bytes.fromhex(served.spec.adapter))
    transfers.down, transfers.threads = Turns(active=1, waiting=0), ThreadPoolExecutor(1)
    transfers.threads.shutdown()  # it takes nothing any more: a read would fail
    with pytest.raises(Busy):
        Sender(served).uplink.download(digest, BlobStore(tmp_path / "blobs"))
    transfers.down = Turns()
    with pytest.raises(AggregatorUnavailable):
        Sender(served).uplink.download(digest, BlobStore(tmp_path / "blobs"))


def test_calls__too_many__are_limited_by_caller_and_by_address(served: Served) -> None:
    uplink: Uplink = Sender(served).uplink
    query = pb.QueryUploadRequest(round=1, seed=served.opening().seed)
    session = uplink.session()
    served.service.node_calls = Rate(1.0, 2.0, lambda: 0.0)
    served.service.host_calls = Rate(1.0, 2.0, lambda: 0.0)
    for call in (
        lambda: uplink.stub.QueryUpload(query, metadata=session),
        lambda: uplink.stub.GetRun(pb.GetRunRequest()),
    ):
        call()
        call()
        with pytest.raises(Busy, match="calls too often"), translated():
            call()


def test_streams__too_many__are_limited_and_freed(served: Served) -> None:
    uplink: Uplink = Sender(served).uplink
    served.service.node_streams = Held(1)
    first = uplink.stub.WatchRounds(pb.WatchRoundsRequest(), metadata=uplink.session())
    next(first)
    with pytest.raises(Busy, match="holds 1 streams"), translated():
        next(uplink.stub.WatchRounds(pb.WatchRoundsRequest(), metadata=uplink.session()))
    first.cancel()
    served.await_true(lambda: not served.service.node_streams.counts)
    next(uplink.stub.WatchRounds(pb.WatchRoundsRequest(), metadata=uplink.session()))
