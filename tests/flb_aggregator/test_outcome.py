# SPDX-License-Identifier: Apache-2.0
"""What a round goes on from: the record of the round before, or a sentence about a blob that is none."""

from pathlib import Path

import pytest

from flb.errors import CorruptStore
from flb.store import BlobStore
from flb.types import ZERO_DIGEST
from flb_aggregator import outcome

pytestmark = pytest.mark.unit


def test_record_before__first_round__is_none(tmp_path: Path) -> None:
    assert outcome.record_before(ZERO_DIGEST, BlobStore(tmp_path / "blobs")) is None


@pytest.mark.parametrize("blob", [b"{}", b"no JSON"])
def test_record_before__blob_that_is_no_record__is_corrupt_and_named(tmp_path: Path, blob: bytes) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    digest = blobs.put(blob)
    with pytest.raises(CorruptStore, match=f"the record {digest.hex()} is not one of this program"):
        outcome.record_before(digest, blobs)
