# SPDX-License-Identifier: Apache-2.0
"""Gram matrices: exact in any blocks, at the bound, and for equal updates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.aggregation.gram import Gram, block_size, reduce_into, squared_distances, within_bound

pytestmark = pytest.mark.unit


def gram_in_blocks(vectors: np.ndarray, size: int) -> np.ndarray:
    gram = Gram(len(vectors), size)
    for start in range(0, vectors.shape[1], size):
        part = vectors[:, start : start + size]
        gram.rows(part.shape[1])[:] = part
        gram.add(part.shape[1])
    return gram.matrix


@given(st.integers(1, 8), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**32))
def test_gram__any_blocks__is_exact(count: int, length: int, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-(2**23), 2**23, (count, length))
    exact = [[sum(int(x) * int(y) for x, y in zip(a, b, strict=True)) for b in vectors] for a in vectors]
    assert gram_in_blocks(vectors, size).tolist() == exact


def test_gram__norms_at_the_bound__is_exact_in_any_order() -> None:
    """Length 2^26 in many equal entries, and in one: every partial sum stays an integer below 2^53."""
    vectors = np.zeros((4, 2**12), dtype=np.int64)
    vectors[0] = 2**20
    vectors[1] = -(2**20)
    vectors[2, 7] = 2**26
    vectors[3, ::2], vectors[3, 1::2] = 2**20 - 1, 1
    expected = (vectors @ vectors.T).tolist()
    permuted = vectors[:, np.random.default_rng(0).permutation(2**12)]
    for size in (64, 1000, 4096):
        assert gram_in_blocks(vectors, size).tolist() == gram_in_blocks(permuted, size).tolist() == expected
    assert within_bound(np.array(expected, dtype=float)).all()
    assert within_bound(np.array([[2.0**52 + 1]])).tolist() == [False]


def test_squared_distances__of_equal_updates__are_zero() -> None:
    vectors = np.random.default_rng(1).integers(-(2**20), 2**20, (3, 5))
    vectors[2] = vectors[0]
    found = squared_distances((vectors @ vectors.T).astype(np.int64))
    assert found[0, 2] == 0 and found[0, 1] == found[2, 1] > 0


def test_squared_distances__of_long_updates_that_nearly_agree__are_exact() -> None:
    """In float32 the difference of such norms is noise."""
    vectors = np.full((2, 2**10), 2**21 - 1, dtype=np.int64)
    vectors[1, 5] += 1
    assert squared_distances((vectors @ vectors.T).astype(np.int64)).tolist() == [[0, 1], [1, 0]]


def test_reduce_into__float32__is_round_half_even_of_the_exact_quotient() -> None:
    ring = np.array([3, 5, -3, 2**34, 2**33 + 2**10, 1, 0], dtype=np.float32)
    out = np.empty(7)
    reduce_into(ring, 1, out)
    assert out.tolist() == [2, 2, -2, 2**33, 2**32 + 2**9, 0, 0]


def test_block_size__a_large_cohort__holds_no_more_values() -> None:
    assert all(count * block_size(count) <= 1 << 21 for count in (1, 16, 64, 1000, 4096))
