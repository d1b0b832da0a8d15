// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {Base} from "./Base.t.sol";
import {Trees} from "./Trees.sol";

/// @dev Proofs that a sealed round admitted an update.
contract FLBMerkleTest is Base {
    /// @dev What was sealed, and the leaves of its tree in order, with both sentinels.
    IFLBRounds.Sealed private _record;
    bytes32[] private _leaves;

    function test_verifyUpdate__anyRound__holdsForEachLeaf(uint8 accepted) public {
        seal(accepted % 40);
        for (uint256 index = 0; index < _leaves.length; ++index) {
            (, bytes32[] memory proof) = Trees.update(_leaves, index);
            eq(verify(index, index, proof) ? 1 : 0, 1);
        }
    }

    function test_verifyUpdate__noUpdates__hasTwoSentinels() public {
        seal(0);
        (bytes32 root, bytes32[] memory proof) = Trees.update(_leaves, 0);
        eq(root, _record.updatesRoot);
        eq(proof.length, 1);
        eq(verify(0, 0, proof) ? 1 : 0, 1);
        (, proof) = Trees.update(_leaves, 1);
        eq(verify(1, 1, proof) ? 1 : 0, 1);
    }

    /// @dev A leaf proves its own place only, and no other leaf proves it.
    function test_verifyUpdate__anotherLeafOrPlace__doesNotHold(uint8 accepted, uint256 who, uint256 where) public {
        seal(accepted % 40);
        who %= _leaves.length;
        (, bytes32[] memory proof) = Trees.update(_leaves, who);
        where = where % 2 == 0 ? where % (2 * _leaves.length) : who ^ (1 << (where % 256));
        if (where != who) eq(verify(who, where, proof) ? 1 : 0, 0);
        eq(verify((who + 1) % _leaves.length, who, proof) ? 1 : 0, 0);
    }

    function test_verifyUpdate__otherLength__doesNotHold(uint8 accepted, uint256 who, uint8 length) public {
        seal(accepted % 40);
        who %= _leaves.length;
        (, bytes32[] memory right) = Trees.update(_leaves, who);
        bytes32[] memory proof = new bytes32[](length % 8);
        for (uint256 i = 0; i < proof.length && i < right.length; ++i) proof[i] = right[i];
        eq(verify(who, who, proof) ? 1 : 0, proof.length == right.length ? 1 : 0);
    }

    /// @dev With the right hashes but one level too short, the leaf would have to be an inner node.
    function test_verifyUpdate__innerNodeAsLeaf__doesNotHold() public {
        seal(2);
        (, bytes32[] memory proof) = Trees.update(_leaves, 0);
        bytes32 inner = keccak256(bytes.concat(hex"01", _leaves[0], _leaves[1]));
        eq(keccak256(bytes.concat(hex"01", inner, proof[1])), _record.updatesRoot);
        bytes32[] memory short = new bytes32[](1);
        short[0] = proof[1];
        eq(verify(0, 0, short) ? 1 : 0, 0);
    }

    /// @dev Padding fills the tree up to a power of two, and is no leaf.
    function test_verifyUpdate__placeOfPadding__doesNotHold() public {
        seal(3);
        (, bytes32[] memory proof) = Trees.update(_leaves, 5);
        eq(verify(4, 5, proof) ? 1 : 0, 0);
    }

    function test_verifyUpdate__otherField__doesNotHold() public {
        seal(3);
        (, bytes32[] memory proof) = Trees.update(_leaves, 1);
        (address node, uint64 weight, bytes32 a, bytes32 b, bytes32 c) = update(1);
        bytes32 x = bytes32(uint256(1));
        eq(run.verifyUpdate(_record, OTHER, weight, a, b, c, 1, proof) ? 1 : 0, 0);
        eq(run.verifyUpdate(_record, node, weight + 1, a, b, c, 1, proof) ? 1 : 0, 0);
        eq(run.verifyUpdate(_record, node, weight, a ^ x, b, c, 1, proof) ? 1 : 0, 0);
        eq(run.verifyUpdate(_record, node, weight, a, b ^ x, c, 1, proof) ? 1 : 0, 0);
        eq(run.verifyUpdate(_record, node, weight, a, b, c ^ x, 1, proof) ? 1 : 0, 0);
        eq(run.verifyUpdate(_record, node, weight, a, b, c, 1, proof) ? 1 : 0, 1);
    }

    function test_verifyUpdate__largestAccepted__countsTheSentinels() public {
        seal(3, type(uint32).max);
        bytes32[] memory proof = new bytes32[](33);
        eq(verify(1, 1, proof) ? 1 : 0, 0);
    }

    function test_verifyUpdate__recordOfNoRound__isAMismatch() public {
        seal(3);
        (, bytes32[] memory proof) = Trees.update(_leaves, 1);
        IFLBRounds.Sealed memory other = _record;
        other.accepted += 1;
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBRecordMismatch.selector, uint32(1)));
        run.verifyUpdate(other, OTHER, 1, 0, 0, 0, 1, proof);
    }

    /// @dev tests/flb/test_vectors.py checks the same roots against flb/merkle.py: proto/vectors/merkle.json.
    function test_update__noUpdates__equalsFlbMerkle() public {
        seal(0);
        eq(_record.updatesRoot, EMPTY_UPDATES_ROOT);
    }

    bytes32 private constant EMPTY_UPDATES_ROOT = 0xe208651bbc8ff1bd04ade649662e26926023e9cfdcd8b76745edab94d1248c3f;

    // ---------------------------------------------------------------- helpers

    function seal(uint32 accepted) private {
        seal(accepted, accepted);
    }

    function seal(uint32 updates, uint32 accepted) private {
        _leaves = new bytes32[](uint256(updates) + 2);
        for (uint256 i = 0; i < _leaves.length; ++i) {
            (address node, uint64 weight, bytes32 a, bytes32 b, bytes32 c) = update(i);
            _leaves[i] = Trees.updateLeaf(node, weight, a, b, c);
        }
        IFLBRounds.Roll memory r = statement(1);
        r.accepted = accepted;
        (r.updatesRoot,) = Trees.update(_leaves, 0);
        start();
        nextBlock();
        _record = recordOf(1, 0, r);
        vm.prank(AGGREGATOR);
        run.roll(1, r);
    }

    /// @dev The update at a place: sentinels at both ends.
    function update(uint256 index) private view returns (address node, uint64 weight, bytes32 a, bytes32 b, bytes32 c) {
        if (index == 0) return (address(0), 0, 0, 0, 0);
        if (index == _leaves.length - 1) return (address(type(uint160).max), 0, 0, 0, 0);
        return (address(uint160(index << 80)), uint64(index), keccak256(abi.encode(index)), 0, bytes32(index));
    }

    /// @dev Whether the update `who` is proved at `where`.
    function verify(uint256 who, uint256 where, bytes32[] memory proof) private view returns (bool) {
        (address node, uint64 weight, bytes32 a, bytes32 b, bytes32 c) = update(who);
        return run.verifyUpdate(_record, node, weight, a, b, c, where, proof);
    }
}
