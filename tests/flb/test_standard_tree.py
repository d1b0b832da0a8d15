# SPDX-License-Identifier: Apache-2.0
"""Trees of scores and payouts: the npm package's roots and proofs, and nothing that was not put in is proved."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb import standard_tree
from flb.merkle import keccak256
from flb.types import ZERO_DIGEST, Address, Digest

pytestmark = pytest.mark.unit

ENTRIES = st.lists(
    st.tuples(st.binary(min_size=20, max_size=20).map(Address), st.integers(0, standard_tree.UINT256 - 1)),
    min_size=1,
    max_size=40,
    unique_by=lambda entry: entry[0],
)
VECTORS = Path(__file__).resolve().parents[2] / "proto" / "vectors" / "standard_tree.json"
CASES = json.loads(VECTORS.read_text())["cases"]
SPREAD = 0x9E3779B97F4A7C15F39CC0605CEDC835


def raw(text: str) -> bytes:
    return bytes.fromhex(text[2:])


def entry(index: int) -> tuple[Address, int]:
    """Entry number `index` of the trees whose roots the npm package printed."""
    return Address((index * SPREAD % 2**160).to_bytes(20, "big")), (index - 1) * 0x1000003**7 % standard_tree.UINT256


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(len(case["entries"])))
def test_tree__vectors__have_array_places_and_proofs(case: dict[str, Any]) -> None:
    made = standard_tree.tree((Address(raw(node)), int(value)) for node, value in case["entries"])
    assert [made.root, *made.nodes] == [raw(one) for one in [case["root"], *case["tree"]]]
    assert list(made.places) == case["places"]
    assert [list(made.proof(index)) for index in range(len(made.places))] == [
        [raw(one) for one in proof] for proof in case["proofs"]
    ]


def test_root__ten_thousand_entries__is_that_of_openzeppelin_merkle_tree() -> None:
    """StandardMerkleTree.of(entries, ["address", "uint256"]) of @openzeppelin/merkle-tree 1.0.8 gave root and proof."""
    made = standard_tree.tree(entry(index) for index in range(1, 10_001))
    assert made.root.hex() == "167fc790638e42106e4ab8aa9d2481fc8b98c81ec6a1e868a85afa69d246cf82"
    proof = made.proof(4321)
    assert (len(proof), proof[0].hex()[:16], proof[-1].hex()[:16]) == (13, "de8c99eb5211190c", "440c4f1b5b0c3b0c")


@given(ENTRIES)
def test_proof__every_entry__leads_to_the_root(entries: list[standard_tree.Entry]) -> None:
    made = standard_tree.tree(entries)
    for index, one in enumerate(entries):
        assert standard_tree.root_of_proof(standard_tree.leaf(*one), made.proof(index)) == made.root


@given(ENTRIES, st.randoms())
def test_root__other_order__is_the_same(entries: list[standard_tree.Entry], random: object) -> None:
    turned = list(entries)
    random.shuffle(turned)  # type: ignore[attr-defined]
    assert standard_tree.root(turned) == standard_tree.root(entries)


@given(ENTRIES, st.data())
def test_proof__another_value__leads_elsewhere(entries: list[standard_tree.Entry], data: st.DataObject) -> None:
    made = standard_tree.tree(entries)
    index = data.draw(st.integers(0, len(entries) - 1))
    node, value = entries[index]
    other = data.draw(st.integers(0, standard_tree.UINT256 - 1).filter(lambda one: one != value))
    assert standard_tree.root_of_proof(standard_tree.leaf(node, other), made.proof(index)) != made.root


def test_leaf__inner_node__is_never_one() -> None:
    """A leaf is hashed twice, so the 64 bytes of a pair never pass as its fields."""
    node, value = entry(1)
    fields = bytes(12) + node + value.to_bytes(32, "big")
    assert standard_tree.leaf(node, value) == keccak256(keccak256(fields)) != keccak256(fields)


def test_tree__no_entries__has_the_zero_root_and_one_entry_is_its_own_root() -> None:
    assert standard_tree.root([]) == ZERO_DIGEST
    one = standard_tree.tree([entry(1)])
    assert (one.root, one.proof(0)) == (standard_tree.leaf(*entry(1)), ())
    with pytest.raises(IndexError):
        one.proof(1)


@pytest.mark.parametrize("value", [-1, standard_tree.UINT256])
def test_leaf__no_uint256__is_refused(value: int) -> None:
    with pytest.raises(OverflowError):
        standard_tree.leaf(Address(bytes(20)), value)


def test_root_of_proof__no_siblings__is_the_leaf() -> None:
    assert standard_tree.root_of_proof(Digest(b"\x01" * 32), ()) == b"\x01" * 32
