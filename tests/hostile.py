# SPDX-License-Identifier: Apache-2.0
"""What fuzz tests share: mutations of legal bytes, JSON that is nearly right, and the memory that a call takes."""

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

MIB = 1 << 20


def peak_of(call: Callable[[], Any]) -> int:
    """The most bytes that Python and numpy held at once during `call` above what they held before it."""
    gc.collect(0)
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@st.composite
def mutated(draw: st.DrawFn, blob: bytes, hot: int = 0) -> bytes:
    """`blob` after one to three of: a flipped bit, a cut, an insertion, a slice repeated or overwritten.

    Half of the places lie in the first `hot` bytes, where headers are.
    """
    data = bytearray(blob)
    for _ in range(draw(st.integers(1, 3))):
        ends = [len(data)] + ([min(hot, len(data))] if hot else [])
        at = draw(st.integers(0, max(draw(st.sampled_from(ends)) - 1, 0)))
        count = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("flip", "cut", "insert", "repeat", "overwrite")))
        if kind == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at : at + count]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif kind == "repeat":
            data[at:at] = data[at : at + count]
        else:
            data[at : at + count] = draw(st.binary(min_size=1, max_size=64))[: len(data) - at]
    return bytes(data)


ATOMS = st.one_of(
    st.none(), st.booleans(), st.floats(), st.text(max_size=8), st.just("\ud800"), st.just("0x"), st.just([]),
    st.just({}), st.sampled_from((0, -1, 1, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 10**30, 10**400)),
)  # fmt: skip
"""JSON values that are wrong in most places."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of every value within a JSON value, the whole included."""
    found = [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        found += places(item, (*path, key))
    return found


@st.composite
def mutated_json(draw: st.DrawFn, blob: bytes) -> bytes:
    """`blob` with one to three of its values replaced, dropped or doubled; written compactly with sorted keys."""
    value = json.loads(blob)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places(value)))
        if not path:
            continue
        owner = value
        for key in path[:-1]:
            owner = owner[key]
        kind = draw(st.sampled_from(("replace", "replace", "drop", "double")))
        if kind == "drop":
            del owner[path[-1]]
        elif kind == "double" and isinstance(owner, list):
            owner.append(owner[path[-1]])
        elif kind == "double":
            owner[draw(st.text(max_size=4))] = owner[path[-1]]
        else:
            owner[path[-1]] = draw(ATOMS)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=draw(st.booleans())).encode(
        errors="surrogatepass"
    )
