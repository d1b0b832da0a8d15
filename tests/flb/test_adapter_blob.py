# SPDX-License-Identifier: Apache-2.0
"""An adapter blob's form is read from its header and must be one that the run knows."""

import io
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.adapter_blob import form_at, form_of, largest_size
from flb.errors import BadContainer
from flb.lora.shape import at_rank
from flb.spec import RunSpec
from flb.types import TensorSpec
from flb.wire import container
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def spec_of(mode: str = "stack", **more: object) -> RunSpec:
    spec = small_spec(mode)
    return replace(spec, lora=replace(spec.lora, **more))  # type: ignore[arg-type]


def read(spec: RunSpec, blob: bytes) -> int:
    return form_of(spec, io.BytesIO(blob).read).rank


@pytest.mark.parametrize("rank", [1, 2, 3, 77, 1200])
def test_form_of__a_rank_up_to_the_bound__is_read_from_the_header(rank: int) -> None:
    spec = spec_of(max_rank=1200)
    form = form_at(spec, rank)
    assert read(spec, form.header + b"data") == rank
    assert form.size == len(form.header) + 4 * rank * (40_000 + 8) and form.size <= largest_size(spec)


@pytest.mark.parametrize(
    ("mode", "more"), [("stack", {"max_rank": 8}), ("factors", {"residual_rank": 6}), ("factors", {})]
)
def test_form_of__a_rank_that_the_run_has_not__is_named(mode: str, more: dict[str, int]) -> None:
    spec = spec_of(mode, **more)
    with pytest.raises(BadContainer, match="rank 9, which no adapter of this run has|claims"):
        read(spec, container.adapter_header(at_rank(spec.tensors, 9)))


def test_form_of__names_types_order_or_metadata_that_differ__are_refused() -> None:
    spec = spec_of(max_rank=1200)
    tensors = at_rank(spec.tensors, 3)
    other = (TensorSpec(tensors[0].name.replace("0", "1"), tensors[0].shape), tensors[1])
    wide = (tensors[0], TensorSpec(tensors[1].name, (8, 4)))
    for header in (
        container.adapter_header(other), container.adapter_header(wide), container.adapter_header(tensors[:1]),
        container.encode_header(tensors, "F32", {}), container.encode_header(tensors, "BF16", {"format": "pt"}),
    ):  # fmt: skip
        with pytest.raises(BadContainer):
            read(spec, header)


@given(st.binary(max_size=40), st.integers(0, 300), st.integers(0, 255))
def test_form_of__any_beginning__is_a_form_or_refused(tail: bytes, place: int, value: int) -> None:
    spec = spec_of(max_rank=1200)
    blob = bytearray(form_at(spec, 5).header + tail)
    blob[place % len(blob)] = value
    for raw in (bytes(blob), tail, len(tail).to_bytes(8, "little") + tail):
        with suppress(BadContainer):
            assert raw.startswith(form_of(spec, io.BytesIO(raw).read).header)


@pytest.mark.parametrize(
    "blob", [b"", b"1234567", b"\xff" * 8, b"\x08" + bytes(7) + b"no json!", container.adapter_header(())]
)
def test_form_of__no_header__is_one_sentence(blob: bytes) -> None:
    with pytest.raises(BadContainer):
        read(spec_of(max_rank=1200), blob)
