# SPDX-License-Identifier: Apache-2.0
"""A JSON list item by item is what the json module reads at once, however the file is cut into chunks."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb_node.json_stream import items

pytestmark = pytest.mark.unit

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def streamed(content: bytes, chunk: int) -> list[object]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_bytes(content)
        seen: list[int] = []
        found = list(items(path, seen.append, chunk))
        assert sum(seen) == len(content)
        return found


@given(st.lists(json_values, max_size=6), st.integers(1, 30), st.booleans(), st.sampled_from([None, 1]))
def test_items__any_list_in_any_chunks__what_json_reads(
    values: list[object], chunk: int, ascii_only: bool, indent: int | None
) -> None:
    written = json.dumps(values, ensure_ascii=ascii_only, indent=indent).encode()
    assert streamed(b"\xef\xbb\xbf " + written + b"\n", chunk) == values


@given(st.binary(max_size=30) | st.text('[]{},:"1 t', max_size=12).map(str.encode), st.integers(1, 9))
def test_items__any_bytes__what_json_reads_or_value_error(content: bytes, chunk: int) -> None:
    try:
        wanted = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        wanted = None
    if isinstance(wanted, list):
        assert streamed(content, chunk) == wanted
    else:
        with pytest.raises(ValueError):
            streamed(content, chunk)
