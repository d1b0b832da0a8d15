# SPDX-License-Identifier: Apache-2.0
"""Who may download what a sealed round left besides its adapter."""

import dataclasses
from pathlib import Path

import pytest

from flb import records
from flb.records import Closing
from flb.spec import ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest
from flb_aggregator.listing import listed, of_step
from tests.sim import DOMAIN, MemoryRegistry, members, opening, small_spec

pytestmark = pytest.mark.unit

MOMENTS, DOWN, REMAINDER = (Digest(bytes([number]) * 32) for number in (1, 2, 3))


@pytest.mark.parametrize(
    ("optimizer", "audit", "member", "seen"),
    [
        ("adam", "members", True, {MOMENTS, DOWN, REMAINDER}),
        ("adam", "members", False, {DOWN, REMAINDER}),
        ("adam", "off", True, {MOMENTS, DOWN, REMAINDER}),
        ("adam", "off", False, {DOWN, REMAINDER}),
        ("adam", "public", False, {MOMENTS, DOWN, REMAINDER}),
        ("sgd", "members", False, {DOWN, REMAINDER}),
    ],
)
@pytest.mark.parametrize("down", ["mxint8", "f32"])
def test_listed__what_a_round_left__moments_are_for_members(
    optimizer: str, audit: str, member: bool, seen: set[Digest], down: str, tmp_path: Path
) -> None:
    spec = dataclasses.replace(small_spec(down=down), server_optimizer=ServerOptimizerSpec(optimizer, 1.0), audit=audit)
    spec = dataclasses.replace(spec, adapter="cd" * 32)
    blobs = BlobStore(tmp_path)
    registry = MemoryRegistry(spec, Digest(b"\x07" * 32))
    for node in members(3):
        registry.join(node)
    registry.start()
    left = {"optimizer_state": MOMENTS if optimizer == "adam" else ZERO_DIGEST}
    left |= {"down": DOWN, "remainder": REMAINDER} if down == "mxint8" else {}
    record = records.make(
        DOMAIN, registry.view().spec, opening(), ZERO_DIGEST, Closing((), (), ()), Digest(b"\x08" * 32), **left,
        standings=(), round_payout=0,
    )  # fmt: skip
    blob = records.encode(record)
    registry.roll(dataclasses.replace(records.roll_of(record, blob), accepted=2, weight_sum=2))
    view = registry.view()
    wanted = seen if down == "mxint8" else seen - {DOWN, REMAINDER}
    everything = (MOMENTS, DOWN, REMAINDER)
    assert not any(listed(digest, spec, view, blobs, member) for digest in everything), "the record is not here"
    blobs.put(blob)
    assert {digest for digest in everything if listed(digest, spec, view, blobs, member)} == wanted
    assert set(of_step(blobs, view.rolls[0].record_digest)) == {digest for digest in left.values() if any(digest)}
