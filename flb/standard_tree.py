# SPDX-License-Identifier: Apache-2.0
"""Merkle trees of (address, uint256) as OpenZeppelin's StandardMerkleTree has them: scores and payouts.

Leaf = keccak256(keccak256(abi.encode(address, uint256))), node = keccak256(smaller ‖ larger), leaves sorted by hash,
the tree an array of 2n - 1 hashes with the root first and the leaves last, in reverse. So any wallet tool that knows
`@openzeppelin/merkle-tree` makes the same roots and proofs, and `MerkleProof.verify` of the contracts checks them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flb.merkle import keccak256
from flb.types import ZERO_DIGEST, Address, Digest

UINT256 = 2**256
"""Values are below it."""
Entry = tuple[Address, int]
"""A node and its value: a total score, or a cumulative payout."""


@dataclass(frozen=True, slots=True)
class StandardTree:
    """The whole tree: `nodes` as the npm package dumps them, and where the leaf of each entry lies in them."""

    nodes: tuple[bytes, ...]
    places: tuple[int, ...]
    """Index into `nodes` of each entry, in the order in which the entries were given."""

    @property
    def root(self) -> Digest:
        """The root; zero for a tree without entries, which the npm package refuses."""
        return Digest(self.nodes[0]) if self.nodes else ZERO_DIGEST

    def proof(self, entry: int) -> tuple[Digest, ...]:
        """Siblings of the entry of that number, from the bottom up. Raises IndexError."""
        place, siblings = self.places[entry], []
        while place > 0:
            siblings.append(Digest(self.nodes[place + 1 if place % 2 else place - 1]))
            place = (place - 1) // 2
        return tuple(siblings)


def leaf(node: Address, value: int) -> Digest:
    """The double hash of one entry. Raises OverflowError for a value that is no uint256."""
    return Digest(keccak256(keccak256(bytes(12) + node + value.to_bytes(32, "big"))))


def tree(entries: Iterable[Entry]) -> StandardTree:
    """The tree over entries in any order; the order changes neither root nor proofs."""
    leaves = [leaf(*entry) for entry in entries]
    count = len(leaves)
    nodes: list[bytes] = [b""] * max(0, 2 * count - 1)
    places = [0] * count
    for rank, number in enumerate(sorted(range(count), key=lambda number: leaves[number])):
        places[number] = len(nodes) - 1 - rank
        nodes[places[number]] = leaves[number]
    for place in range(count - 2, -1, -1):
        nodes[place] = _pair(nodes[2 * place + 1], nodes[2 * place + 2])
    return StandardTree(tuple(nodes), tuple(places))


def root(entries: Iterable[Entry]) -> Digest:
    """Root over entries; zero for none."""
    return tree(entries).root


def root_of_proof(leaf_hash: Digest, siblings: Sequence[Digest]) -> Digest:
    """The root that a proof leads to; compare it with the root that is known."""
    current: bytes = leaf_hash
    for sibling in siblings:
        current = _pair(current, sibling)
    return Digest(current)


def _pair(one: bytes, other: bytes) -> bytes:
    return keccak256(one + other if one < other else other + one)
