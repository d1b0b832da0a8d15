# SPDX-License-Identifier: Apache-2.0
"""Trees: golden roots, paths, domain separation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import merkle
from flb.types import Address, Digest

pytestmark = pytest.mark.unit

NODE, OTHER = Address(b"\x01" * 20), Address(b"\x02" * 20)


def leaves(count: int) -> list[Digest]:
    return [merkle.leaf(bytes([index])) for index in range(count)]


def test_keccak256__known_vectors__match_the_evm() -> None:
    assert merkle.keccak256(b"").hex() == "c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"


@given(st.integers(1, 40), st.data())
def test_path__every_leaf__leads_to_the_root(count: int, data: st.DataObject) -> None:
    tree, index = leaves(count), data.draw(st.integers(0, count - 1))
    path = merkle.path(tree, index)
    assert len(path) == (count - 1).bit_length()
    assert merkle.root_of_path(tree[index], index, path) == merkle.root(tree)
    if count > 1:
        other = tree[(index + 1) % count]
        assert merkle.root_of_path(other, index, path) != merkle.root(tree)


def test_root__two_leaves__is_the_prefixed_pair() -> None:
    one, two = leaves(2)
    assert merkle.root([one, two]) == merkle.keccak256(b"\x01" + one + two)
    assert merkle.root([one]) == one and merkle.root([]) == bytes(32)


def test_root__order_and_number__matter() -> None:
    one, two, three = leaves(3)
    assert len({merkle.root(t) for t in ([one, two], [two, one], [one, two, three], [one, one])}) == 4


def test_updates_root__sentinels__enclose_the_leaves() -> None:
    zero = bytes(32)
    low = merkle.keccak256(b"\x00" + bytes(20) + bytes(8) + zero * 3)
    high = merkle.keccak256(b"\x00" + b"\xff" * 20 + bytes(8) + zero * 3)
    leaf = merkle.update_leaf(NODE, 5, *(Digest(bytes([i]) * 32) for i in range(3)))
    assert merkle.updates_root([leaf]) == merkle.root([low, leaf, high])


def test_dataset_root__copied_by_another_node__is_another_root() -> None:
    salted = [merkle.salted_record(bytes(32), b"record")]
    assert merkle.dataset_root(NODE, salted) != merkle.dataset_root(OTHER, salted)


def test_salted_record__another_salt__hides_an_equal_record() -> None:
    assert merkle.salted_record(bytes(32), b"r") != merkle.salted_record(b"\x01" * 32, b"r")
