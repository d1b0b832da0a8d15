# SPDX-License-Identifier: Apache-2.0
"""safetensors, written canonically and read strictly."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import BadContainer
from flb.types import TensorSpec
from flb.wire import container

pytestmark = pytest.mark.unit

TENSORS = (TensorSpec("b", (2, 3)), TensorSpec("a", (4,)))


def test_encode_header__safetensors_library__reads_it() -> None:
    data = np.arange(10, dtype="<f4")
    blob = container.encode_header(TENSORS, "F32", {"node": "0x1", "base": "0x2"}) + data.tobytes()
    read = safetensors.numpy.load(blob)
    assert np.array_equal(read["a"], data[:4]) and np.array_equal(read["b"], data[4:].reshape(2, 3))


def test_encode_header__any_order__gives_the_same_bytes() -> None:
    one = container.encode_header(TENSORS, "F32", {"x": "1", "y": "2"})
    assert one == container.encode_header(TENSORS[::-1], "F32", {"y": "2", "x": "1"})
    assert len(one) % 8 == 0


def test_decode_header__round_trip() -> None:
    blob = container.encode_header(TENSORS, "BF16", {"k": "v"})
    assert container.header_length(blob[:8], 1000) == len(blob) - 8
    header = container.decode_header(blob[8:])
    assert [(e.name, e.shape, e.start, e.end) for e in header.entries] == [("a", (4,), 0, 8), ("b", (2, 3), 8, 20)]
    assert header.metadata == {"k": "v"} and header.data_start == len(blob)


def test_header_length__oversize__is_refused() -> None:
    with pytest.raises(BadContainer, match="claims 9223372036854775807 bytes, 100 are allowed"):
        container.header_length(struct.pack("<Q", 2**63 - 1), 100)


@pytest.mark.parametrize(
    "field",
    [
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]},
        {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        [],
    ],
)
def test_decode_header__malformed_entry__is_refused(field: object) -> None:
    with pytest.raises(BadContainer):
        container.decode_header(json.dumps({"t": field}).encode())


@given(st.binary(max_size=200))
def test_decode_header__any_bytes__never_raises_anything_else(text: bytes) -> None:
    try:
        container.decode_header(text)
    except BadContainer:
        pass


def test_first_difference__names_the_tensor() -> None:
    def words(tensors: tuple[TensorSpec, ...], dtype: str = "F32") -> str:
        header = container.decode_header(container.encode_header(tensors, dtype, {})[8:])
        return container.first_difference(header, container.pack((t.name, "F32", t.shape) for t in TENSORS))

    assert words(TENSORS[:1]) == "tensor a is missing"
    assert words((TensorSpec("b", (3, 2)), TENSORS[1])) == "tensor b has shape [3, 2], the run spec says [2, 3]"
    assert words((*TENSORS, TensorSpec("c", (1,)))) == "tensor c is not part of this step"
    assert words(TENSORS, "BF16") == "tensor a is BF16, the run's codec is F32"


def test_pack__several_types__lie_in_order_of_names_without_gaps() -> None:
    entries = container.pack([("b.scale", "U8", (2,)), ("b", "I8", (5, 8)), ("a", "F32", (3,))])
    assert [(e.name, e.start, e.end) for e in entries] == [("a", 0, 12), ("b", 12, 52), ("b.scale", 52, 54)]
    blob = container.header_of(entries, {"k": "v"}) + bytes(range(54))
    read = safetensors.numpy.load(blob)
    assert read["b"].dtype == np.int8 and read["b"].shape == (5, 8) and read["b.scale"].tolist() == [52, 53]
    assert container.decode_header(blob[8 : len(blob) - 54]).entries == entries
