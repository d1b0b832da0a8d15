# SPDX-License-Identifier: Apache-2.0
"""Requests that arrive twice, crossed or out of order: one update counts, and its bytes are the ones that were signed.

A client by hand against the product's aggregator on a real port; the registry is the one in memory.
"""

import hashlib
import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flb import errors
from flb.types import Manifest, Member
from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import messages
from flb_node.uplink import Uplink, translated
from tests.served import Served, serve
from tests.sim import key_for, manifest_for, signed, small_spec, update_bytes

pytestmark = pytest.mark.e2e

END = object()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec()) as running:
        yield running


class Stream:
    """An upload whose messages are sent when the test says so; it runs in a thread until it has its answer."""

    def __init__(self, uplink: Uplink, manifest: Manifest, key: bytes, offset: int = 0) -> None:
        self.messages: queue.Queue[Any] = queue.Queue()
        self.header = pb.UploadHeader(
            manifest=messages.manifest_to_proto(manifest, signed(manifest, key)), offset=offset
        )
        self.again()
        metadata = uplink.session()
        self.pool = ThreadPoolExecutor(1)

        def call() -> Any:
            with translated():
                return uplink.stub.UploadUpdate(iter(self.messages.get, END), metadata=metadata)

        self.answer: Future[Any] = self.pool.submit(call)

    def again(self) -> None:
        """Send the header."""
        self.messages.put(pb.UploadUpdateRequest(header=self.header))

    def send(self, data: bytes) -> None:
        """Send a chunk."""
        self.messages.put(pb.UploadUpdateRequest(data=data))

    def end(self) -> Any:
        """Send no more; the receipt, or the refusal."""
        self.messages.put(END)
        self.pool.shutdown(wait=False)
        return self.answer.result(20)


def made(served: Served) -> tuple[Member, Uplink, Manifest, bytes]:
    """A member with its client and its update."""
    opening = served.opening()
    member = opening.cohort[0]
    blob = update_bytes(served.spec, opening.step, member, opening.base)
    return member, served.uplink(member), manifest_for(served.spec, opening, member, blob), blob


def query(uplink: Uplink, manifest: Manifest) -> Any:
    """What the aggregator holds."""
    request = pb.QueryUploadRequest(round=manifest.round, seed=manifest.seed)
    with translated():
        return uplink.stub.QueryUpload(request, metadata=uplink.session())


def one_counts(served: Served, manifest: Manifest) -> None:
    """One update, its bytes, nothing else."""
    assert [admitted.manifest for admitted in served.admitted().values()] == [manifest]
    blob = (served.folder / "blobs" / manifest.digest.hex()).read_bytes()
    assert hashlib.sha256(blob).digest() == manifest.digest
    assert not list((served.folder / "spool").iterdir())


def test_upload__same_one_on_two_streams_at_once__counts_once_with_one_receipt(served: Served) -> None:
    member, uplink, manifest, blob = made(served)
    first = Stream(uplink, manifest, key_for(member))
    first.send(blob[:1000])
    served.await_true(lambda: query(uplink, manifest).committed == 1000)
    second = Stream(uplink, manifest, key_for(member))
    second.send(blob)
    receipt = second.end().receipt
    first.send(blob[1000:])
    with pytest.raises((errors.WrongRound, errors.AggregatorUnavailable)):
        first.end()
    assert query(uplink, manifest).receipt == receipt
    assert Stream(uplink, manifest, key_for(member)).end().receipt == receipt, "a repeat gets the same"
    one_counts(served, manifest)


def test_upload__header_twice__is_refused_and_a_new_stream_succeeds(served: Served) -> None:
    member, uplink, manifest, blob = made(served)
    twice = Stream(uplink, manifest, key_for(member))
    twice.send(blob[:1000])
    twice.again()
    with pytest.raises(errors.BadMessage, match="second header"):
        twice.end()
    assert query(uplink, manifest).committed == 0
    good = Stream(uplink, manifest, key_for(member))
    good.send(blob)
    assert good.end().receipt.signature
    one_counts(served, manifest)


def test_query__while_uploading__tells_the_committed_offset_and_disturbs_nothing(served: Served) -> None:
    member, uplink, manifest, blob = made(served)
    stream = Stream(uplink, manifest, key_for(member))
    for end in range(0, len(blob), 20_000):
        stream.send(blob[end : end + 20_000])
        expected = min(end + 20_000, len(blob))
        served.await_true(lambda expected=expected: query(uplink, manifest).committed == expected)
        assert query(uplink, manifest).digest == manifest.digest
    receipt = stream.end().receipt
    assert query(uplink, manifest).receipt == receipt
    one_counts(served, manifest)


def test_upload__older_stream_after_a_newer__is_closed_and_writes_nothing(served: Served) -> None:
    member, uplink, manifest, blob = made(served)
    older = Stream(uplink, manifest, key_for(member))
    older.send(blob[:1000])
    served.await_true(lambda: query(uplink, manifest).committed == 1000)
    newer = Stream(uplink, manifest, key_for(member), offset=1000)
    newer.send(blob[1000:3000])
    served.await_true(lambda: query(uplink, manifest).committed == 3000)
    older.send(b"\xff" * 500)
    with pytest.raises(errors.WrongRound, match="replaced by a newer one"):
        older.end()
    assert query(uplink, manifest).committed == 3000
    newer.send(blob[3000:])
    newer.end()
    one_counts(served, manifest)


def test_upload__chunks_in_another_order__is_refused_and_leaves_nothing(served: Served) -> None:
    member, uplink, manifest, blob = made(served)
    crossed = Stream(uplink, manifest, key_for(member))
    for part in (blob[1000:2000], blob[:1000], blob[2000:]):
        crossed.send(part)
    with pytest.raises(errors.DigestMismatch):
        crossed.end()
    assert query(uplink, manifest).committed == 0
    good = Stream(uplink, manifest, key_for(member))
    good.send(blob)
    good.end()
    one_counts(served, manifest)
