// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Math} from "@openzeppelin/contracts/utils/math/Math.sol";

/// @title The index-ordered tree of updates
/// @notice Leaf = keccak256(0x00 ‖ fields), node = keccak256(0x01 ‖ left ‖ right), padded with zero hashes to the next
/// power of two. Not OpenZeppelin's tree: pairs that are sorted by hash cannot prove that two leaves are neighbours.
/// @dev A path has exactly the depth of its tree, and leaves and inner nodes have prefixes of their own, so that an
/// inner node never passes as a leaf.
library FLBMerkle {
    /// @notice Leaf of an admitted update.
    function updateLeaf(address node, uint64 weight, bytes32 digest, bytes32 tensorRoot, bytes32 datasetRoot)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encodePacked(bytes1(0x00), node, weight, digest, tensorRoot, datasetRoot));
    }

    /// @notice Whether `proof` leads from `leaf` at `index` to `root` of a tree of `leaves` leaves, at least one.
    function verify(bytes32 root, bytes32 leaf, uint256 index, uint256 leaves, bytes32[] calldata proof)
        internal
        pure
        returns (bool)
    {
        if (index >= leaves || proof.length != Math.log2(leaves, Math.Rounding.Ceil)) return false;
        bytes32 current = leaf;
        for (uint256 level = 0; level < proof.length; ++level) {
            (bytes32 left, bytes32 right) =
                (index >> level) & 1 == 0 ? (current, proof[level]) : (proof[level], current);
            current = keccak256(abi.encodePacked(bytes1(0x01), left, right));
        }
        return current == root;
    }
}
