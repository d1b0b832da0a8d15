# SPDX-License-Identifier: Apache-2.0
"""Admission: every refusal once, in the stated order."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from flb import admission, errors
from flb.spec import RunSpec, digest_of
from flb.types import Admitted, Codec, Digest, Manifest, Round, Step
from flb.wire import container
from tests.sim import (
    DOMAIN,
    TENSORS,
    key_for,
    key_of,
    manifest_for,
    members,
    opening,
    reader,
    signed,
    small_spec,
    update_bytes,
)

pytestmark = pytest.mark.unit

SPEC = small_spec(codec="f32")
OPENING = opening()
MEMBER = OPENING.cohort[0]
BLOB = update_bytes(SPEC, Step(1), MEMBER, OPENING.base)
MANIFEST = manifest_for(SPEC, OPENING, MEMBER, BLOB)


def check(manifest: Manifest, key: bytes | None = None, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "spec": SPEC, "spec_digest": digest_of(SPEC.encode()), "domain": DOMAIN, "opening": OPENING, "admitted": None,
    }  # fmt: skip
    return admission.check_manifest(manifest, signed(manifest, key or key_for(MEMBER)), **{**arguments, **changes})


def test_check_manifest__honest__returns_the_member() -> None:
    assert check(MANIFEST) == MEMBER


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"spec": Digest(b"\x09" * 32)}, errors.UnknownRun),
        ({"round": Round(2)}, errors.WrongRound),
        ({"seed": Digest(b"\x09" * 32)}, errors.WrongRound),
        ({"node": b"\x09" * 20}, errors.NotInCohort),
        ({"size": len(BLOB) + 1}, errors.TooLarge),
        ({"size": len(BLOB) - 1}, errors.BadContainer),
        ({"base": Digest(b"\x09" * 32)}, errors.WrongBase),
        ({"codec": Codec.BF16}, errors.BadMessage),
        ({"tensor_root": Digest(b"\x09" * 32)}, errors.BadMessage),
        ({"dataset_root": Digest(b"\x09" * 32)}, errors.NoDataset),
        ({"examples": 0}, errors.BadMessage),
    ],
)
def test_check_manifest__one_wrong_field__has_its_own_error(changes: dict[str, Any], error: type) -> None:
    with pytest.raises(error) as caught:
        check(dataclasses.replace(MANIFEST, **changes))
    assert type(caught.value) is error


def test_check_manifest__signed_by_another_key__is_refused() -> None:
    with pytest.raises(errors.BadSignature, match="not signed by the key in the round's roster"):
        check(MANIFEST, key=key_of(9))


def test_check_manifest__no_open_round__is_refused() -> None:
    with pytest.raises(errors.WrongRound, match="no round is open"):
        check(MANIFEST, opening=None)


def test_check_manifest__another_update_admitted__is_refused_and_the_same_one_passes() -> None:
    held = Admitted(MANIFEST, b"", 1, b"")
    assert check(MANIFEST, admitted=held) == MEMBER
    other = manifest_for(SPEC, OPENING, MEMBER, BLOB[:-4] + bytes(4))
    with pytest.raises(errors.AlreadyAdmitted):
        check(other, admitted=held)


def test_check_manifest__no_registered_records__is_refused() -> None:
    bare = dataclasses.replace(MEMBER, records=0)
    with pytest.raises(errors.NoDataset):
        check(MANIFEST, opening=dataclasses.replace(OPENING, cohort=(bare, *OPENING.cohort[1:])))


def test_weight__claims_ten_times_the_registered_records__is_what_was_registered() -> None:
    honest, liar = (dataclasses.replace(MANIFEST, examples=n) for n in (MEMBER.records, 10 * MEMBER.records))
    assert admission.weight(SPEC, liar, MEMBER) == admission.weight(SPEC, honest, MEMBER) == MEMBER.records


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
@pytest.mark.parametrize(("mode", "step"), [("factors", 1), ("alternate", 1), ("alternate", 2)])
def test_check_update__honest__passes_and_tells_the_norm(codec: str, mode: str, step: int) -> None:
    spec = small_spec(mode, codec)
    blob = update_bytes(spec, Step(step), MEMBER, OPENING.base)
    manifest = manifest_for(spec, OPENING, MEMBER, blob)
    size = sum(t.size for t in admission.layout_of(spec, Step(step)).tensors)
    norm = admission.check_update(reader(blob), manifest, spec, Step(step))
    assert norm == pytest.approx(1e-3 * size**0.5, rel=0.5)


def blob_with(value: float, tensors: Any = TENSORS, spec: RunSpec = SPEC) -> bytes:
    header = container.encode_header(tensors, "F32", admission.update_metadata(bytes(32), MEMBER.node, OPENING.base))
    data = np.zeros(sum(t.size for t in tensors), dtype="<f4")
    data[-1] = value
    return header + data.tobytes()


def refusal(blob: bytes, spec: RunSpec = SPEC) -> errors.FLBError:
    with pytest.raises(errors.PeerFault) as caught:
        admission.check_update(reader(blob), manifest_for(spec, OPENING, MEMBER, blob), spec, Step(1))
    return caught.value


def test_check_update__nan__names_the_tensor() -> None:
    error = refusal(blob_with(float("nan")))
    assert type(error) is errors.NotFinite and TENSORS[1].name in str(error)


def test_check_update__beyond_the_bound__names_the_tensor() -> None:
    error = refusal(blob_with(4.5))
    assert type(error) is errors.ValueTooLarge and TENSORS[1].name in str(error)


def test_check_update__norm_beyond_the_bound__is_refused() -> None:
    spec = dataclasses.replace(SPEC, ring=dataclasses.replace(SPEC.ring, norm_bound=2))
    assert type(refusal(blob_with(3.0), spec)) is errors.NormTooLarge


def test_check_update__tensor_of_another_shape__is_named() -> None:
    flipped = (dataclasses.replace(TENSORS[0], shape=(40_000, 2)), TENSORS[1])
    error = refusal(blob_with(0, flipped))
    assert type(error) is errors.BadContainer and "shape [40000, 2], the run spec says [2, 40000]" in str(error)


def test_check_update__oversize_header__is_refused_before_it_is_read() -> None:
    reads = []

    def read(offset: int, part: memoryview) -> int:
        reads.append(len(part))
        part[:] = (2**40).to_bytes(8, "little")
        return len(part)

    with pytest.raises(errors.BadContainer, match="claims 1099511627776 bytes"):
        admission.check_update(read, MANIFEST, SPEC, Step(1))
    assert reads == [8]


@pytest.mark.parametrize("field", ["salt", "node", "base"])
def test_check_update__metadata_of_another_update__is_refused(field: str) -> None:
    metadata = admission.update_metadata(bytes(32), MEMBER.node, OPENING.base)
    metadata[field] = metadata[field].replace("0", "1") if field != "node" else "0x" + members(3)[1].node.hex()
    if field == "salt":
        metadata["salt"] = "00"
    blob = container.encode_header(TENSORS, "F32", metadata) + bytes(4 * sum(t.size for t in TENSORS))
    assert type(refusal(blob)) is errors.WrongBase


def test_check_update__cut_short__is_refused() -> None:
    assert type(refusal(BLOB[:-1])) is errors.BadContainer


def test_check_update__near_the_bounds__is_decided_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The estimate admits what is far from both bounds; nearer, and beyond, the exact walk decides."""
    exact = []
    real = admission.check_values
    monkeypatch.setattr(admission, "check_values", lambda *given: exact.append(1) or real(*given))
    spec, opened = small_spec(codec="f32"), opening()
    member = opened.cohort[0]
    for scale, walked in ((1e-3, False), (15.85 / 283, True)):
        exact.clear()
        blob = update_bytes(spec, opened.step, member, opened.base, scale)
        ring = dataclasses.replace(spec.ring, value_bound=16)
        wide = dataclasses.replace(spec, ring=ring)
        manifest = manifest_for(wide, opened, member, blob)
        norm = admission.check_update(reader(blob), manifest, wide, opened.step)
        assert bool(exact) == walked and 0 < norm <= 16
