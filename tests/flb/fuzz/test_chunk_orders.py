# SPDX-License-Identifier: Apache-2.0
"""Streams of one node in every order: a model says what the spool holds, and only the right bytes become a blob."""

import hashlib
import shutil
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flb import errors
from flb.rounds import name_of
from flb.store import BlobStore
from flb.types import Manifest, Step
from flb.wire.chunks import CHUNK
from flb_aggregator.intake import Spool, Upload, keeps_bytes
from tests.sim import manifest_for, opening, small_spec, update_bytes

pytestmark = pytest.mark.unit

SPEC, OPENING = small_spec(codec="mxint4"), opening()
MEMBER = OPENING.cohort[0]
HONEST = update_bytes(SPEC, Step(1), MEMBER, OPENING.base)
OTHER = update_bytes(SPEC, Step(1), MEMBER, OPENING.base, scale=2e-3)
POISON = HONEST[:-1] + b"\xff"
BLOBS = (HONEST, OTHER, POISON)
"""Two that are legal, and one whose digest is right and whose last scale is none."""
MANIFESTS = tuple(manifest_for(SPEC, OPENING, MEMBER, blob) for blob in BLOBS)
NAME = name_of(OPENING)
PLACES = st.integers(0, len(HONEST) + 10)


class Streams(RuleBasedStateMachine):
    """Any number of streams of one node; the model is the bytes that are held and the digest they are for."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        (self.root / "spool").mkdir()
        self.spool = Spool(self.root / "spool", BlobStore(self.root / "blobs"))
        self.streams: list[Upload] = []
        self.newest: Upload | None = None
        """The one stream that may write."""
        self.held, self.digest = b"", b""
        self.blobs: set[bytes] = set()

    def teardown(self) -> None:
        for stream in self.streams:
            stream.close()
        shutil.rmtree(self.root)

    @rule(manifest=st.sampled_from(MANIFESTS), exact=st.booleans(), offset=PLACES)
    def open(self, manifest: Manifest, exact: bool, offset: int) -> None:
        """A new stream ends the older one, wherever it begins."""
        if exact:
            offset = len(self.held) if self.digest == manifest.digest else 0
        self.newest = None
        if offset == 0 or self.digest != manifest.digest:
            self.held, self.digest = b"", b""
        if offset != len(self.held):
            with pytest.raises(errors.Truncated):
                Upload(self.spool, manifest, offset)
            return
        self.newest = Upload(self.spool, manifest, offset)
        self.streams.append(self.newest)
        self.digest = manifest.digest
        assert self.newest.receiver.held == len(self.held)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), start=PLACES, count=st.integers(0, 20_000), follow=st.booleans())
    def write(self, data: st.DataObject, start: int, count: int, follow: bool) -> None:
        """Any slice on any stream: one that follows, one again, one out of order."""
        stream = data.draw(st.sampled_from(self.streams))
        blob = BLOBS[MANIFESTS.index(stream.manifest)]
        part = blob[len(self.held) if follow and stream is self.newest else start :][:count]
        self.put(stream, part)

    @precondition(lambda self: self.newest)
    @rule()
    def write_the_rest(self) -> None:
        """What is missing, if all that is held was in order."""
        assert self.newest is not None
        self.put(self.newest, BLOBS[MANIFESTS.index(self.newest.manifest)][len(self.held) :])

    @precondition(lambda self: self.newest)
    @rule(over=st.integers(1, 10))
    def write_too_much(self, over: int) -> None:
        """More than a chunk may have."""
        assert self.newest is not None
        self.put(self.newest, bytes(CHUNK + over))

    def put(self, stream: Upload, part: bytes) -> None:
        """Write, and say what has to come of it."""
        if stream is not self.newest:
            expected: type[errors.PeerFault] | None = errors.WrongRound
        elif not 0 < len(part) <= CHUNK:
            expected = errors.BadMessage
        elif len(self.held) + len(part) > stream.manifest.size:
            expected = errors.TooLarge
        else:
            expected = None
        if expected is None:
            stream.write(part)
            self.held += part
        else:
            with pytest.raises(expected) as caught:
                stream.write(part)
            assert type(caught.value) is expected

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), discard=st.booleans())
    def close(self, data: st.DataObject, discard: bool) -> None:
        """Only the stream that may write can take its bytes away."""
        stream = data.draw(st.sampled_from(self.streams))
        stream.close(discard)
        if stream is self.newest:
            self.newest = None
            if discard:
                self.held, self.digest = b"", b""

    @precondition(lambda self: self.streams)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """As the service does it: what may not go on leaves nothing."""
        stream = data.draw(st.sampled_from(self.streams))
        blob = BLOBS[MANIFESTS.index(stream.manifest)]
        if stream is not self.newest:
            with pytest.raises(errors.WrongRound):
                stream.finish(SPEC, Step(1))
            return
        self.newest = None
        if self.held == blob and blob is not POISON:
            stream.finish(SPEC, Step(1))
            self.blobs.add(stream.manifest.digest)  # the spool keeps it until the journal has it
            return
        short, wrong = len(self.held) < len(blob), self.held != blob
        expected = errors.Truncated if short else errors.DigestMismatch if wrong else errors.BadContainer
        with pytest.raises(expected) as caught:
            stream.finish(SPEC, Step(1))
        assert type(caught.value) is expected
        stream.close(discard=not keeps_bytes(caught.value))
        if not keeps_bytes(caught.value):
            self.held, self.digest = b"", b""

    @rule(keep=st.booleans())
    def clear(self, keep: bool) -> None:
        """The opening changes or does not; a stream that is on its way then ends, as the daemon sees to."""
        if not keep:
            if self.newest is not None:
                self.newest.close()
            self.newest, self.held, self.digest = None, b"", b""
        self.spool.clear(NAME if keep else None)

    @invariant()
    def the_spool_holds_what_the_model_says(self) -> None:
        files = list(self.spool.folder.iterdir())
        assert len(files) <= 1
        assert self.spool.committed(NAME, MEMBER.node) == (len(self.held), self.digest)
        if files:
            assert files[0].read_bytes() == self.held
            assert len(self.held) <= len(HONEST)

    @invariant()
    def every_blob_is_what_its_name_says(self) -> None:
        found = {bytes.fromhex(path.name): path.read_bytes() for path in self.spool.blobs.folder.iterdir()}
        assert set(found) == self.blobs
        assert all(hashlib.sha256(blob).digest() == digest for digest, blob in found.items())


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=max(60, settings().max_examples // 4), stateful_step_count=30)


def test_upload__opened_from_many_threads_at_once__one_stream_is_left_and_the_blob_is_whole(tmp_path: Path) -> None:
    """Two streams that open at the same time used to share a file name: one could become the other's blob."""
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool", BlobStore(tmp_path / "blobs"))
    for _ in range(20):
        streams: list[Upload] = []
        start = threading.Barrier(4)

        def begin(streams: list[Upload] = streams, start: threading.Barrier = start) -> None:
            start.wait()
            streams.append(Upload(spool, MANIFESTS[0], 0))

        threads = [threading.Thread(target=begin) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = 0
        for stream in streams:
            try:
                stream.write(HONEST)
                stream.finish(SPEC, Step(1))
            except errors.WrongRound:
                ended += 1
        assert ended == 3 and spool.blobs.get(MANIFESTS[0].digest) == HONEST
        assert list(spool.folder.iterdir()) == [spool.path(MANIFESTS[0])]
