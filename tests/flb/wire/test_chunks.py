# SPDX-License-Identifier: Apache-2.0
"""Transfers: any cut, any resume, the same bytes."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import BadMessage, DigestMismatch, TooLarge, Truncated
from flb.types import Digest
from flb.wire import chunks

pytestmark = pytest.mark.unit


def digest(data: bytes) -> Digest:
    return Digest(hashlib.sha256(data).digest())


@given(st.binary(min_size=1, max_size=300), st.lists(st.integers(0, 300), max_size=4))
def test_transfer__cut_anywhere__goes_on_at_the_committed_offset(data: bytes, cuts: list[int]) -> None:
    held = b""
    for cut in [*cuts, len(data)]:
        receiver = chunks.Receiver(digest(data), len(data))
        receiver.resume(held)
        for chunk in chunks.send(lambda at, count: data[at : at + count], len(data), receiver.held):
            if cut < len(data):
                chunk = chunk[:cut] or chunk[:1]
            receiver.take(chunk)
            held += chunk
            break
    if len(held) < len(data):
        with pytest.raises(Truncated):
            receiver.finish()
        receiver.take(data[len(held) :])
    receiver.finish()


def test_finish__one_flipped_bit__is_a_mismatch() -> None:
    receiver = chunks.Receiver(digest(b"abcd"), 4)
    receiver.take(b"abce")
    with pytest.raises(DigestMismatch):
        receiver.finish()


def test_take__more_than_announced__is_refused_and_not_counted() -> None:
    receiver = chunks.Receiver(digest(b"abcd"), 4)
    with pytest.raises(TooLarge):
        receiver.take(b"abcde")
    receiver.take(b"abcd")
    receiver.finish()


@pytest.mark.parametrize("size", [0, chunks.CHUNK + 1])
def test_take__empty_or_oversize_chunk__is_refused(size: int) -> None:
    with pytest.raises(BadMessage, match=f"a chunk has {size} bytes"):
        chunks.Receiver(digest(b""), 1 << 30).take(bytes(size))


def test_send__large_blob__cuts_at_one_mib() -> None:
    sizes = [len(chunk) for chunk in chunks.send(lambda at, count: bytes(count), 2 * chunks.CHUNK + 5, 3)]
    assert sizes == [chunks.CHUNK, chunks.CHUNK, 2]
