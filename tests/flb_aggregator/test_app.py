# SPDX-License-Identifier: Apache-2.0
"""What an aggregator takes for its run spec, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest

from flb.errors import ConfigError, CorruptStore, Refused
from flb.spec import RunSpec, digest_of
from flb.store import BlobStore
from flb_aggregator.app import read_spec
from flb_aggregator.publish import make_adapter_zero
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def deployed(folder: Path, spec: RunSpec) -> BlobStore:
    """A work folder with this spec."""
    (folder / "spec.json").write_bytes(spec.encode())
    return BlobStore(folder / "blobs")


def test_read_spec__as_deployed__comes_with_its_digest_and_adapter_zero(tmp_path: Path) -> None:
    spec = small_spec()
    spec = replace(spec, adapter=make_adapter_zero(spec.tensors, 0, BlobStore(tmp_path / "other")).hex())
    blobs = deployed(tmp_path, spec)
    assert read_spec(tmp_path, blobs) == (spec, digest_of(spec.encode()))
    assert blobs.has(digest_of(spec.encode()))


def test_read_spec__choices_that_do_not_go_together__are_refused_with_the_nearest_legal_one(tmp_path: Path) -> None:
    spec = small_spec()
    by_hand = replace(spec, lora=replace(spec.lora, mode="alternate", energy=0.5))
    with pytest.raises(Refused, match="mode alternate keeps every rank: set lora.energy: 1.0"):
        read_spec(tmp_path, deployed(tmp_path, by_hand))


def test_read_spec__another_adapter_zero__is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptStore, match="adapter 0 does not follow"):
        read_spec(tmp_path, deployed(tmp_path, small_spec()))


def test_read_spec__no_file__says_where_to_deploy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no spec.json"):
        read_spec(tmp_path, BlobStore(tmp_path / "blobs"))
