# SPDX-License-Identifier: Apache-2.0
"""Uploads that are cut, broken and overtaken: what is kept, what is dropped, and what is sent again."""

import dataclasses
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flb import store
from flb.errors import AggregatorUnavailable, Busy, WrongRound
from flb.rounds import PeerUpdateAdmitted
from flb.store import BlobStore
from flb.types import TensorSpec
from flb.v1 import aggregator_service_pb2 as pb
from flb_aggregator.limits import Held
from flb_node.uplink import translated
from tests.flb_aggregator.test_transfers import Sender
from tests.served import Served, serve
from tests.sim import small_spec

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec(codec="f32")) as running:
        yield running


def test_upload__round_ends_on_the_way__the_stream_ends_with_it(served: Served) -> None:
    """A peer that sends a byte now and then is not idle; the round's deadline is what ends it."""
    sender, moved = Sender(served), threading.Event()

    def trickle() -> Iterator[pb.UploadUpdateRequest]:
        yield sender.header()
        for at in range(2000):
            yield pb.UploadUpdateRequest(data=sender.blob[at : at + 1])
            if at == 10:
                served.registry.expire(sender.manifest.round)
                moved.set()
            if at > 10:
                served.await_true(lambda: served.daemon.state.opening.round == 2)  # type: ignore[union-attr]

    with pytest.raises(WrongRound, match="round ended"):
        sender.send(trickle())
    assert moved.is_set()
    served.await_true(lambda: list(served.daemon.spool.folder.iterdir()) == [])


def test_admit__caller_cut_off_in_the_middle__memory_and_journal_agree(served: Served, tmp_path: Path) -> None:
    """gRPC cancels the handler of a cut call: a transition that has begun is carried through all the same."""
    sender, append, gate = Sender(served), served.daemon.journal.append, threading.Event()
    begun = threading.Event()

    def slow(*facts: Any) -> None:
        if any(isinstance(fact, PeerUpdateAdmitted) for fact in facts):
            begun.set()
            assert gate.wait(10)
        append(*facts)

    served.daemon.journal.append = slow  # type: ignore[method-assign]
    requests = [sender.header(), pb.UploadUpdateRequest(data=sender.blob)]
    call = sender.uplink.stub.UploadUpdate.future(iter(requests), metadata=sender.uplink.session())
    assert begun.wait(10)
    call.cancel()
    gate.set()
    served.await_true(lambda: sender.member.node in served.admitted())
    Sender(served, 1).deliver(tmp_path)
    kinds = [type(fact).__name__ for fact in served.daemon.journal.facts()]
    assert kinds.count("PeerUpdateAdmitted") == 2
    receipt, _ = sender.deliver(tmp_path)
    assert receipt.digest == sender.manifest.digest, "the lost answer costs one call"


def test_upload__medium_broken_under_the_flush__gives_no_receipt_and_keeps_nothing(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = Sender(served)

    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "write-back failed")

    monkeypatch.setattr(store, "sync_file", broken)
    with pytest.raises(AggregatorUnavailable, match="in trouble"):
        sender.deliver(tmp_path)
    assert sender.member.node not in served.admitted() and sender.held() == 0
    monkeypatch.undo()
    sender.deliver(tmp_path)


def test_download__strangers__share_a_few_streams_and_members_get_theirs(served: Served, tmp_path: Path) -> None:
    served.service.host_streams = Held(1)
    big = served.daemon.blobs.put(bytes(48 << 20))  # more than the windows of a caller that reads nothing take
    served.service.listed_path = lambda raw, member: served.daemon.blobs.path(big)  # type: ignore[method-assign]
    uplink = Sender(served).uplink
    slow = uplink.stub.DownloadBlob(pb.DownloadBlobRequest(digest=big))
    next(slow)
    with pytest.raises(Busy), translated():
        list(uplink.stub.DownloadBlob(pb.DownloadBlobRequest(digest=big)))
    uplink.download(big, BlobStore(tmp_path / "blobs"))
    slow.cancel()


def test_upload__resumed__sends_no_more_than_four_mebibytes_again(tmp_path: Path) -> None:
    """Cut at random places of a large update; what is sent twice is what was in flight."""
    spec = dataclasses.replace(small_spec(codec="f32"), tensors=(TensorSpec("x.lora_A.weight", (16, 300_000)),))
    with serve(tmp_path / "aggregator", spec) as served:
        sender = Sender(served)
        for cut in (3 << 20, 9 << 20, 14 << 20):
            start, given = sender.held(), [0]

            def requests(start: int = start, cut: int = cut, given: list[int] = given) -> Iterator[Any]:
                yield sender.header(start)
                for at in range(start, cut, 1 << 20):
                    yield pb.UploadUpdateRequest(data=sender.blob[at : min(at + (1 << 20), cut)])
                    given[0] = min(at + (1 << 20), cut)
                raise RuntimeError("the node dies here")

            with pytest.raises(AggregatorUnavailable):
                sender.send(requests())
            served.await_true(lambda: served.service.transfers.up.open == 0)
            assert start <= sender.held() <= cut
            assert given[0] - sender.held() <= 4 << 20, "the resume begins at what is held"
        sender.deliver(tmp_path)
