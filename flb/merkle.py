# SPDX-License-Identifier: Apache-2.0
"""Merkle trees over keccak-256: index-ordered, domain-separated, of a depth fixed by the number of leaves.

Leaf = keccak256(0x00 ‖ fields), node = keccak256(0x01 ‖ left ‖ right). Leaves are padded with zero hashes to the next
power of two, so that the path of an index has one length and an inner node never passes as a leaf.
"""

from collections.abc import Sequence

from Crypto.Hash import keccak

from flb.types import Address, Digest

_LEAF, _NODE, _DATASET = b"\x00", b"\x01", b"\x02"
_PAD = bytes(32)


def keccak256(data: bytes) -> Digest:
    """keccak-256 as the EVM computes it."""
    return Digest(keccak.new(digest_bits=256, data=data).digest())


def leaf(fields: bytes) -> Digest:
    """Hash of a leaf's packed fields."""
    return keccak256(_LEAF + fields)


def root(leaves: Sequence[Digest]) -> Digest:
    """Root over leaves in their order; the zero hash for none."""
    if not leaves:
        return Digest(_PAD)
    level: list[bytes] = list(leaves)
    level += [_PAD] * ((1 << (len(level) - 1).bit_length()) - len(level))
    while len(level) > 1:
        level = [keccak256(_NODE + left + right) for left, right in zip(level[::2], level[1::2], strict=True)]
    return Digest(level[0])


def path(leaves: Sequence[Digest], index: int) -> list[Digest]:
    """Siblings of leaf `index` from the bottom up."""
    level: list[bytes] = list(leaves)
    level += [_PAD] * ((1 << (len(level) - 1).bit_length()) - len(level))
    siblings = []
    while len(level) > 1:
        siblings.append(Digest(level[index ^ 1]))
        level = [keccak256(_NODE + left + right) for left, right in zip(level[::2], level[1::2], strict=True)]
        index >>= 1
    return siblings


def root_of_path(leaf_hash: Digest, index: int, siblings: Sequence[Digest]) -> Digest:
    """The root that a path leads to; compare it with the root that is known."""
    current: bytes = leaf_hash
    for sibling in siblings:
        current = keccak256(_NODE + (sibling + current if index & 1 else current + sibling))
        index >>= 1
    return Digest(current)


def update_leaf(node: Address, weight: int, digest: Digest, tensor_root: Digest, dataset_root: Digest) -> Digest:
    """Leaf of the updates tree: node 20 bytes, weight 8 bytes big endian, three hashes."""
    return leaf(node + weight.to_bytes(8, "big") + digest + tensor_root + dataset_root)


def updates_root(leaves: Sequence[Digest]) -> Digest:
    """Root of the updates tree. Leaves are in order of node address; a sentinel below and one above all addresses
    make it provable that a node is not in between."""
    low = update_leaf(Address(bytes(20)), 0, Digest(_PAD), Digest(_PAD), Digest(_PAD))
    high = update_leaf(Address(b"\xff" * 20), 0, Digest(_PAD), Digest(_PAD), Digest(_PAD))
    return root([low, *leaves, high])


def dataset_root(node: Address, salted_records: Sequence[Digest]) -> Digest:
    """Commitment to a dataset: keccak256(0x02 ‖ node ‖ record count as 8 bytes ‖ root over salted record hashes).

    It commits to the node's address, so that a root copied from another node opens to nothing.
    """
    return keccak256(_DATASET + node + len(salted_records).to_bytes(8, "big") + root(salted_records))


def salted_record(salt: bytes, record: bytes) -> Digest:
    """Leaf of a dataset: keccak256(0x00 ‖ 32-byte salt ‖ record). Without the salt the record can't be guessed."""
    return leaf(salt + record)
