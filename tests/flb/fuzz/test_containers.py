# SPDX-License-Identifier: Apache-2.0
"""Hostile updates: whatever the bytes are, admission returns a norm or one fault, in bounded memory."""

import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import admission, errors
from flb.types import Step
from flb.wire import container
from tests.hostile import ATOMS, MIB, mutated, peak_of
from tests.sim import manifest_for, opening, reader, small_spec, update_bytes

pytestmark = pytest.mark.unit

CODECS = ("f32", "bf16", "mxint8", "mxint4")
OPENING = opening()
MEMBER = OPENING.cohort[0]
SPECS = {codec: small_spec(codec=codec) for codec in CODECS}
BLOBS = {codec: update_bytes(spec, Step(1), MEMBER, OPENING.base) for codec, spec in SPECS.items()}
HEADERS = {codec: admission.layout_of(spec, Step(1)).header_size for codec, spec in SPECS.items()}
CONTENT = (errors.BadContainer, errors.WrongBase, errors.NotFinite, errors.ValueTooLarge, errors.NormTooLarge)
"""What the bytes of an update may be refused for once their digest is right."""
ROOM = 4 * MIB
"""The reader's buffers, and the header as text, as JSON and as entries."""


def outcome(blob: bytes, codec: str = "f32") -> errors.PeerFault | float:
    """What admission makes of a blob; any other exception is the test's failure."""
    spec = SPECS[codec]
    try:
        return admission.check_update(reader(blob), manifest_for(spec, OPENING, MEMBER, blob), spec, Step(1))
    except errors.PeerFault as error:
        fault, sentence = error, str(error)
    assert type(fault) in CONTENT
    assert sentence.encode() and sentence.isprintable() and len(sentence) < 1000
    return fault


def refused(blob: bytes, codec: str = "f32") -> errors.PeerFault:
    """The fault of a blob that has to be refused."""
    found = outcome(blob, codec)
    assert isinstance(found, errors.PeerFault)
    return found


def with_header(text: bytes, length: int | None = None) -> bytes:
    """The update in f32 under another header."""
    prefix = struct.pack("<Q", len(text) if length is None else length)
    return prefix + text + BLOBS["f32"][HEADERS["f32"] :]


def legal_fields() -> dict[str, Any]:
    """The legal header in f32 as JSON."""
    fields: dict[str, Any] = json.loads(BLOBS["f32"][8 : HEADERS["f32"]])
    return fields


NAMES = [name for name in legal_fields() if name != "__metadata__"]


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**32, 10**8, 2**63 - 1, 2**63, 2**64 - 1])
def test_check_update__header_of_any_claimed_length__is_refused_in_bounded_memory(length: int) -> None:
    blob = with_header(BLOBS["f32"][8 : HEADERS["f32"]], length)
    assert peak_of(lambda: refused(blob)) < ROOM
    assert type(refused(blob)) is errors.BadContainer


@pytest.mark.parametrize("unit", [b"[", b'{"a":', b'[{"":', b'"', b"1", b"\xff", b"\x00", b"-", b'{"__metadata__":'])
def test_decode_header__bomb_as_large_as_the_format_allows__is_malformed(unit: bytes) -> None:
    """Run specs may be large, so the decoder is tried beyond what this small one lets pass."""
    with pytest.raises(errors.BadContainer):
        container.decode_header(unit * (MIB // len(unit)))
    small = unit * (HEADERS["f32"] // len(unit))
    assert type(refused(with_header(small[: HEADERS["f32"] - 8]))) is errors.BadContainer


FIELDS = st.one_of(
    ATOMS,
    st.fixed_dictionaries(
        {},
        optional={
            "dtype": st.one_of(ATOMS, st.sampled_from((*container.ITEM_SIZES, "F8_E4M3", "f32", ""))),
            "shape": st.one_of(ATOMS, st.lists(st.one_of(ATOMS, st.integers(0, 1 << 40)), max_size=4)),
            "data_offsets": st.one_of(ATOMS, st.lists(st.one_of(ATOMS, st.integers(0, 1 << 40)), max_size=3)),
        },
    ),
)


@given(
    st.lists(st.tuples(st.one_of(st.sampled_from((*NAMES, "__metadata__")), st.text(max_size=6)), FIELDS), max_size=4)
)
def test_decode_header__any_json__is_a_header_or_malformed(items: list[tuple[str, Any]]) -> None:
    """The text is written by hand, so that a name may occur twice."""
    text = "{" + ",".join(f"{json.dumps(name)}:{json.dumps(field)}" for name, field in items) + "}"
    try:
        header = container.decode_header(text.encode())
    except errors.BadContainer:
        pass
    else:
        for entry in header.entries:
            assert all(type(extent) is int and extent >= 0 for extent in entry.shape)
            assert 0 <= entry.start <= entry.end and entry.dtype in container.ITEM_SIZES
        assert all(isinstance(part, str) for item in header.metadata.items() for part in item)
    assert isinstance(refused(with_header(text.encode())), errors.BadContainer | errors.WrongBase)


@given(st.binary(max_size=300))
def test_decode_header__random_bytes__are_malformed(text: bytes) -> None:
    with pytest.raises(errors.BadContainer):
        container.decode_header(b"\xff" + text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("shape", [2, -40_000]),
        ("shape", [2.0, 40_000]),
        ("shape", ["2", "40000"]),
        ("shape", "24"),
        ("shape", [True, 80_000]),
        ("shape", [2**40, 2**40]),
        ("shape", [10**300, 10**300]),
        ("shape", [80_000, *([1] * 100)]),
        ("shape", [0]),
        ("shape", {"2": 1}),
        ("dtype", "F128"),
        ("dtype", ["F32"]),
        ("dtype", None),
        ("data_offsets", [0, 2**63]),
        ("data_offsets", [320_000, 0]),
        ("data_offsets", [64, 320_064]),
        ("data_offsets", [-4, 319_996]),
        ("data_offsets", [0]),
        ("data_offsets", [0, 1, 2]),
        ("data_offsets", "ab"),
    ],
)
def test_check_update__one_absurd_field__is_a_bad_container(field: str, value: Any) -> None:
    fields = legal_fields()
    fields[NAMES[0]][field] = value
    text = json.dumps(fields, separators=(",", ":")).encode()
    with_room = text + b" " * (HEADERS["f32"] - 8 - len(text))
    assert type(refused(with_header(with_room))) is errors.BadContainer


def test_check_update__entries_that_overlap_swap_or_repeat__are_bad_containers() -> None:
    fields = legal_fields()
    one, two = (json.dumps({name: fields[name]}, separators=(",", ":"))[1:-1] for name in NAMES)
    metadata = json.dumps({"__metadata__": fields["__metadata__"]}, separators=(",", ":"))[1:-1]
    over = two.replace("320000", "319936").replace("320064", "320000")
    assert over != two
    for parts in ((metadata, two, one), (one, two, metadata), (metadata, one, over), (metadata, one, one, two)):
        text = ("{" + ",".join(parts) + "}").encode()
        assert type(refused(with_header(text))) is errors.BadContainer
    assert type(refused(with_header(("{" + ",".join((metadata, metadata, one, two)) + "}").encode()))) in CONTENT


@pytest.mark.parametrize("value", [None, [], "x", 1, {"salt": 1}, {"salt": None}, {"salt": "\ud800" * 64}, {"": ""}])
def test_check_update__metadata_of_another_type__is_refused(value: Any) -> None:
    fields = legal_fields() | {"__metadata__": value}
    text = json.dumps(fields, separators=(",", ":")).encode()
    assert type(refused(with_header(text))) in (errors.BadContainer, errors.WrongBase)


@pytest.mark.parametrize("name", ["\ud800", "\n12:00:00 aggregator: all is well", "\x1b[2J", "\u202e", "x" * 500])
def test_check_update__foreign_name__is_quoted_so_that_it_can_be_sent_and_logged(name: str) -> None:
    """A lone surrogate has no bytes, a line feed forges a line of the log."""
    form = container.Header((container.Entry(name, "F32", (0,), 0, 0),), {}, 8)
    said = container.first_difference(form, ())
    assert said.encode() and said.isprintable() and len(said) < 600


@pytest.mark.parametrize("codec", CODECS)
@given(data=st.data())
def test_check_update__mutated__returns_a_norm_only_of_what_is_still_legal(codec: str, data: st.DataObject) -> None:
    blob = data.draw(mutated(BLOBS[codec], hot=HEADERS[codec]))
    blob = blob[: len(BLOBS[codec])]  # a manifest with more bytes is refused before the first of them
    found = outcome(blob, codec)
    if isinstance(found, errors.PeerFault):
        return
    size, salted = HEADERS[codec], json.loads(blob[8 : HEADERS[codec]])["__metadata__"]["salt"]
    legal = container.header_of(
        admission.layout_of(SPECS[codec], Step(1)).entries,
        admission.update_metadata(bytes.fromhex(salted), MEMBER.node, OPENING.base),
    )
    assert blob[:size] == legal and len(blob) == len(BLOBS[codec]) and 0 <= found <= SPECS[codec].ring.norm_bound


@pytest.mark.parametrize("codec", CODECS)
@given(seed=st.integers(0, 2**32))
def test_check_update__random_data_under_the_legal_header__has_one_fault_in_bounded_memory(
    codec: str, seed: int
) -> None:
    size = HEADERS[codec]
    blob = BLOBS[codec][:size] + random.Random(seed).randbytes(len(BLOBS[codec]) - size)
    found: list[errors.PeerFault] = []
    assert peak_of(lambda: found.append(refused(blob, codec))) < ROOM
    assert type(found[0]) is not errors.WrongBase
    assert isinstance(outcome(BLOBS[codec], codec), float), "the honest update still gets in"
