# SPDX-License-Identifier: Apache-2.0
"""What was made once is never made otherwise: a restarted aggregator takes what its note names."""

import dataclasses
from pathlib import Path

import pytest

from flb.records import Closing
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Admitted, Digest, Opening
from flb_aggregator import outcome
from flb_aggregator.made import Blobs, Note
from flb_aggregator.publish import make_adapter_zero
from tests import sim
from tests.product_rounds import product_spec

pytestmark = pytest.mark.unit


class Closed:
    """A closed round of three updates in a work folder."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.spec, self.folder, self.blobs = spec, folder, BlobStore(folder / "blobs")
        self.opening: Opening = sim.opening(base=make_adapter_zero(spec.tensors, 0, self.blobs))
        admitted = []
        for member in self.opening.cohort:
            blob = sim.update_bytes(spec, self.opening.step, member, self.opening.base)
            self.blobs.put(blob)
            manifest = sim.manifest_for(spec, self.opening, member, blob)
            admitted.append(Admitted(manifest, bytes(65), 100, bytes(65)))
        self.closing = Closing(admitted=tuple(admitted), late=(), missing=())

    def make(self) -> Digest:
        """The digest of the adapter that is announced."""
        digest = Digest(bytes(32))
        roll = outcome.make(
            self.spec, digest, sim.DOMAIN, self.opening, self.closing, ZERO_DIGEST, self.blobs, self.folder / "adapters"
        )
        return roll.adapter_digest


def other_bytes(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> Digest:
    """From now on the arithmetic gives other bytes, as another BLAS might; their digest."""
    other = closed.blobs.put(b"another machine's last bits")

    def blobs_of(*_: object) -> Blobs:
        return Blobs(other)

    monkeypatch.setattr(outcome, "blobs_of", blobs_of)
    return other


@pytest.mark.parametrize("lora", [{}, {"mode": "factors", "residual_rank": 2}])
def test_make__restarted_where_arithmetic_differs__announces_the_same_adapter(
    lora: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = product_spec()
    closed = Closed(dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, **lora)), tmp_path)  # type: ignore[arg-type]
    first = closed.make()
    other_bytes(closed, monkeypatch)
    assert closed.make() == first
    folder = tmp_path / "adapters" / "step-0001" / "adapter_model.safetensors"
    assert folder.read_bytes() == closed.blobs.get(first)


@pytest.mark.parametrize("loss", ["blob gone", "blob altered", "note gone", "note cut", "another closing"])
def test_make__note_or_blob_lost__is_made_again(loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Closed(product_spec(), tmp_path)
    first = closed.make()
    (note,) = (tmp_path / "made").iterdir()
    match loss:
        case "blob gone":
            closed.blobs.path(first).unlink()
        case "blob altered":
            closed.blobs.path(first).write_bytes(b"x")
        case "note gone":
            note.unlink()
        case "note cut":
            note.write_bytes(note.read_bytes()[:-9])
        case "another closing":
            closed.closing = dataclasses.replace(closed.closing, admitted=closed.closing.admitted[:2])
    monkeypatch.setattr(outcome, "publish_folder", lambda *_: None)
    other = other_bytes(closed, monkeypatch)
    assert closed.make() == other


def test_make__mode_that_anybody_makes_alike__writes_no_note(tmp_path: Path) -> None:
    Closed(product_spec("factors"), tmp_path).make()
    assert not (tmp_path / "made").exists()


def test_make__note__is_durable_before_anything_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = Closed(product_spec(), tmp_path)
    seen: list[int] = []
    monkeypatch.setattr(
        outcome, "publish_folder", lambda *_: seen.append(len(list((tmp_path / "made").glob("*.json"))))
    )
    closed.make()
    assert seen == [1]


def test_make__report__gets_the_figures_on_a_restart_too(tmp_path: Path) -> None:
    closed, reports = Closed(product_spec(), tmp_path), []
    for _ in range(2):
        outcome.make(
            closed.spec, Digest(bytes(32)), sim.DOMAIN, closed.opening, closed.closing, ZERO_DIGEST, closed.blobs,
            tmp_path / "adapters", reports.append,
        )  # fmt: skip
    assert reports[0] == reports[1] and set(reports[0]) == {"gap", "lost_energy"} and reports[0]["gap"] > 0


def test_note__of_rounds_long_over__is_deleted(tmp_path: Path) -> None:
    def note(number: int) -> Note:
        return Note(tmp_path, sim.opening(number=number), Closing((), (), ()))

    for number in (1, 2, 3):
        note(number).write(Blobs(Digest(bytes(31) + b"\x01")))
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["2", "3"]
