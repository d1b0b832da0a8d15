# SPDX-License-Identifier: Apache-2.0
"""Spool: resume at the committed offset, replace, refuse, leave nothing behind."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from flb.errors import Busy, DigestMismatch, NotFinite, Truncated, WrongRound
from flb.rounds import name_of
from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.intake import Spool, Upload, keeps_bytes
from tests.sim import manifest_for, opening, small_spec, update_bytes

pytestmark = pytest.mark.unit

SPEC, OPENING = small_spec(codec="f32"), opening()
MEMBER = OPENING.cohort[0]
BLOB = update_bytes(SPEC, Step(1), MEMBER, OPENING.base)
MANIFEST = manifest_for(SPEC, OPENING, MEMBER, BLOB)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", BlobStore(tmp_path / "blobs"))


def test_spool__file_that_goes_while_it_is_listed__holds_nothing_and_is_no_fault(spool: Spool) -> None:
    """What a stream of the same node that ends at this moment leaves: a name without a file behind it."""
    spool.path(MANIFEST).symlink_to(spool.folder / "gone")
    assert spool.committed(name_of(OPENING), MEMBER.node) == (0, b"")
    spool.check_room(MANIFEST)


def test_upload__cut_and_resumed__becomes_the_blob(spool: Spool) -> None:
    first = Upload(spool, MANIFEST, 0)
    first.write(BLOB[:1000])
    first.close()
    assert spool.committed(name_of(OPENING), MEMBER.node) == (1000, MANIFEST.digest)
    second = Upload(spool, MANIFEST, 1000)
    second.write(BLOB[1000:])
    assert second.finish(SPEC, Step(1)) > 0
    assert spool.blobs.get(MANIFEST.digest) == BLOB
    assert spool.committed(name_of(OPENING), MEMBER.node) == (len(BLOB), MANIFEST.digest), "until it is journaled"


def test_upload__killed_between_blob_and_journal__needs_no_byte_again(spool: Spool) -> None:
    first = Upload(spool, MANIFEST, 0)
    first.write(BLOB)
    first.finish(SPEC, Step(1))
    again = Upload(spool, MANIFEST, len(BLOB))
    assert again.finish(SPEC, Step(1)) > 0 and spool.blobs.get(MANIFEST.digest) == BLOB
    assert [path.name for path in spool.blobs.folder.iterdir()] == [MANIFEST.digest.hex()], "no second name stays"


def test_upload__wrong_offset__is_told_what_is_held(spool: Spool) -> None:
    first = Upload(spool, MANIFEST, 0)
    first.write(BLOB[:1000])
    first.close()
    with pytest.raises(Truncated, match="goes on at byte 999, 1000 are held"):
        Upload(spool, MANIFEST, 999)


def test_upload__another_digest__starts_anew_and_drops_the_old_bytes(spool: Spool) -> None:
    first = Upload(spool, MANIFEST, 0)
    first.write(BLOB[:1000])
    first.close()
    other = manifest_for(SPEC, OPENING, MEMBER, BLOB[:-1] + b"x")
    with pytest.raises(Truncated, match="0 are held"):
        Upload(spool, other, 1000)
    Upload(spool, other, 0).close()
    assert [path.name.rsplit("-", 1)[1] for path in spool.folder.iterdir()] == [other.digest.hex()]


def test_upload__replaced_by_a_newer_stream__writes_nothing_more(spool: Spool) -> None:
    first = Upload(spool, MANIFEST, 0)
    first.close()
    with pytest.raises(WrongRound, match="replaced by a newer one"):
        first.write(BLOB[:10])


def test_finish__one_flipped_byte__is_a_digest_mismatch(spool: Spool) -> None:
    upload = Upload(spool, MANIFEST, 0)
    upload.write(BLOB[:-1] + bytes([BLOB[-1] ^ 1]))
    with pytest.raises(DigestMismatch) as caught:
        upload.finish(SPEC, Step(1))
    assert not keeps_bytes(caught.value)
    upload.close(discard=True)
    assert list(spool.folder.iterdir()) == []


def test_finish__nan__is_refused_before_it_is_a_blob(spool: Spool) -> None:
    bad = BLOB[:-4] + b"\x00\x00\xc0\x7f"
    manifest = manifest_for(SPEC, OPENING, MEMBER, bad)
    upload = Upload(spool, manifest, 0)
    upload.write(bad)
    with pytest.raises(NotFinite):
        upload.finish(SPEC, Step(1))
    upload.close(discard=True)
    assert list(spool.folder.iterdir()) == [] and not spool.blobs.has(manifest.digest)


def test_finish__cut_short__keeps_what_arrived(spool: Spool) -> None:
    upload = Upload(spool, MANIFEST, 0)
    upload.write(BLOB[:1000])
    with pytest.raises(Truncated) as caught:
        upload.finish(SPEC, Step(1))
    assert keeps_bytes(caught.value)
    upload.close()
    assert spool.committed(name_of(OPENING), MEMBER.node)[0] == 1000


def test_clear__another_opening__deletes_the_rest(spool: Spool) -> None:
    Upload(spool, MANIFEST, 0).close()
    spool.clear(name_of(OPENING))
    assert len(list(spool.folder.iterdir())) == 1
    spool.clear(name_of(opening(number=2)))
    assert list(spool.folder.iterdir()) == []


def test_upload__file_swapped_under_it__is_refused_and_becomes_no_blob(spool: Spool) -> None:
    """What was checked and what gets the name must be one file."""
    upload = Upload(spool, MANIFEST, 0)
    upload.write(BLOB)
    upload.path.unlink()
    upload.path.write_bytes(BLOB[:-1] + b"x")
    with pytest.raises(WrongRound, match="not this stream's any more"):
        upload.finish(SPEC, Step(1))
    assert not spool.blobs.has(MANIFEST.digest)


def test_check_room__uploads_on_their_way__count_before_their_bytes_are_there(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = OPENING.cohort[1]
    blob = update_bytes(SPEC, Step(1), other, OPENING.base)
    usage = shutil.disk_usage(spool.folder)  # others write to the same disk: the test holds it still
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    tight = dataclasses.replace(spool, reserve=usage.free - len(BLOB) - len(blob) // 2)
    tight.check_room(MANIFEST)
    first = Upload(tight, manifest_for(SPEC, OPENING, other, blob), 0)
    with pytest.raises(Busy, match="disk is full"):
        tight.check_room(MANIFEST)
    first.close()
    tight.check_room(MANIFEST)
