# SPDX-License-Identifier: Apache-2.0
"""A node's disk: old steps go, what may still be asked for stays."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flb import events as chain
from flb.roster import RunView
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Block, Digest, Round, Seconds, Step
from flb_node.retention import tidy

pytestmark = pytest.mark.unit


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    """Adapters 0 to 4, and the update of each step from 1 to 4."""
    store = BlobStore(tmp_path / "blobs")
    for step in range(1, 5):
        base, update = store.put(f"adapter {step - 1}".encode()), store.put(f"update {step}".encode())
        note = {"step": step, "base": base.hex(), "digest": update.hex(), "size": 8, "codec_error": 0.0}
        (tmp_path / f"step-{step:04d}-{base.hex()[:16]}.json").write_text(json.dumps(note))
    store.put(b"adapter 4")
    return store


def left(store: BlobStore) -> set[str]:
    return {path.read_bytes().decode() for path in store.folder.iterdir()}


def view(store: BlobStore) -> RunView:
    return RunView(adapter=Digest(store.put(b"adapter 4")))


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (1, {"adapter 3", "update 4", "adapter 4"}),
        (2, {"adapter 2", "update 3", "adapter 3", "update 4", "adapter 4"}),
    ],
)
def test_tidy__old_steps__go(tmp_path: Path, blobs: BlobStore, keep: int, names: set[str]) -> None:
    tidy(tmp_path, blobs, view(blobs), Step(4), keep)
    assert left(blobs) == names


def rolled(store: BlobStore, number: int) -> chain.ChainRoundRolled:
    record = Digest(store.put(f"record {number}".encode()))
    place = chain.Place(Block(number, ZERO_DIGEST), 0, ZERO_DIGEST)
    root = Digest(bytes([7]) * 32)
    return chain.ChainRoundRolled(
        place, Round(number), ZERO_DIGEST, record, ZERO_DIGEST, ZERO_DIGEST, root, root, ZERO_DIGEST, 2, 2, Seconds(0)
    )


def test_tidy__records_of_payouts__stay_while_a_claim_may_need_them(tmp_path: Path, blobs: BlobStore) -> None:
    rolls = tuple(rolled(blobs, number) for number in range(1, 100))
    tidy(tmp_path, blobs, replace(view(blobs), rolls=rolls, payout_round=3), Step(4), 1)
    kept = {int(name.split()[1]) for name in left(blobs) if name.startswith("record")}
    assert kept == {3, *range(36, 100)}, "the active one, and those that the contract can still activate"
    tidy(tmp_path, blobs, replace(view(blobs), rolls=rolls, payout_round=90), Step(4), 1)
    kept = {int(name.split()[1]) for name in left(blobs) if name.startswith("record")}
    assert kept == set(range(90, 100))


def test_tidy__no_limit__keeps_all(tmp_path: Path, blobs: BlobStore) -> None:
    assert tidy(tmp_path, blobs, view(blobs), Step(4), None) == 0 and len(left(blobs)) == 9


def test_tidy__further_needed__stays(tmp_path: Path, blobs: BlobStore) -> None:
    tidy(tmp_path, blobs, view(blobs), Step(4), 1, {blobs.put(b"adapter 0")})
    assert left(blobs) == {"adapter 0", "adapter 3", "update 4", "adapter 4"}


def test_tidy__damaged_note__deletes_nothing(tmp_path: Path, blobs: BlobStore) -> None:
    next(iter(tmp_path.glob("step-0001*"))).write_text("{")
    assert tidy(tmp_path, blobs, view(blobs), Step(4), 1) == 0
