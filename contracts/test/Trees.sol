// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @dev The two trees, built the slow and plain way.
library Trees {
    // ------------------------------------------------------------------ payouts

    function payoutLeaf(address node, uint256 cumulative) internal pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(abi.encode(node, cumulative))));
    }

    /// @dev OpenZeppelin's StandardMerkleTree over leaves in any order: the root first, the sorted leaves last and in
    /// reverse.
    function payouts(bytes32[] memory leaves) internal pure returns (bytes32[] memory tree) {
        uint256 count = leaves.length;
        tree = new bytes32[](2 * count - 1);
        for (uint256 i = 0; i < count; ++i) {
            uint256 rank = 0;
            for (uint256 j = 0; j < count; ++j) {
                if (leaves[j] < leaves[i] || (leaves[j] == leaves[i] && j < i)) ++rank;
            }
            tree[2 * count - 2 - rank] = leaves[i];
        }
        for (uint256 i = count - 1; i > 0; --i) {
            (bytes32 left, bytes32 right) = (tree[2 * i - 1], tree[2 * i]);
            tree[i - 1] = left < right ? pair(left, right) : pair(right, left);
        }
    }

    function payoutProof(bytes32[] memory tree, bytes32 leaf) internal pure returns (bytes32[] memory proof) {
        uint256 at = tree.length - 1;
        while (tree[at] != leaf) --at;
        bytes32[] memory buffer = new bytes32[](64);
        uint256 length = 0;
        while (at > 0) {
            buffer[length++] = tree[at % 2 == 1 ? at + 1 : at - 1];
            at = (at - 1) / 2;
        }
        proof = cut(buffer, length);
    }

    function pair(bytes32 left, bytes32 right) private pure returns (bytes32) {
        return keccak256(bytes.concat(left, right));
    }

    // ------------------------------------------------------------------ updates

    function updateLeaf(address node, uint64 weight, bytes32 digest, bytes32 tensorRoot, bytes32 datasetRoot)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(bytes.concat(hex"00", bytes20(node), bytes8(weight), digest, tensorRoot, datasetRoot));
    }

    /// @dev Root and path of a leaf, from the leaves in order with both sentinels.
    function update(bytes32[] memory leaves, uint256 index)
        internal
        pure
        returns (bytes32 root, bytes32[] memory path)
    {
        uint256 width = 1;
        uint256 depth = 0;
        while (width < leaves.length) (width, depth) = (2 * width, depth + 1);
        bytes32[] memory level = new bytes32[](width);
        for (uint256 i = 0; i < leaves.length; ++i) level[i] = leaves[i];
        path = new bytes32[](depth);
        for (uint256 i = 0; i < depth; ++i) {
            path[i] = level[index ^ 1];
            index /= 2;
            width /= 2;
            for (uint256 j = 0; j < width; ++j) {
                level[j] = keccak256(bytes.concat(hex"01", level[2 * j], level[2 * j + 1]));
            }
        }
        root = level[0];
    }

    // ------------------------------------------------------------------ any

    /// @dev The first `length` of a list.
    function cut(bytes32[] memory list, uint256 length) internal pure returns (bytes32[] memory out) {
        out = new bytes32[](length);
        for (uint256 i = 0; i < length; ++i) out[i] = list[i];
    }
}
