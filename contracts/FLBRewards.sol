// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";
import {MerkleProof} from "@openzeppelin/contracts/utils/cryptography/MerkleProof.sol";

import {FLBMembers} from "./FLBMembers.sol";
import {IFLBRewards} from "./interfaces/IFLBRewards.sol";

/// @title The payouts of a run
/// @dev `roll` writes nothing here: the payout root of a round is in its record hash until it is activated.
abstract contract FLBRewards is FLBMembers, ReentrancyGuardTransient {
    using SafeERC20 for IERC20;

    uint32 private _payoutRound;
    bytes32 private _payoutRoot;

    mapping(address node => uint256) private _claimed;
    mapping(uint256 round => bool) private _cancelled;

    /// @dev The part of `initialize` that concerns payouts.
    function _initializeRewards(address admitter_) internal view {
        if (address(_token()) != address(0) && admitter_ == address(0)) revert FLBPayoutsNeedAdmission();
    }

    /// @inheritdoc IFLBRewards
    function activatePayout(Sealed calldata record) external {
        if (address(_token()) == address(0)) revert FLBZero("token");
        if (record.payoutRoot == 0) revert FLBZero("payoutRoot");
        if (record.round <= _payoutRound) revert FLBNotNewer(record.round, _payoutRound);
        if (_cancelled[record.round]) revert FLBCancelled(record.round);
        _requireRecord(record);
        uint40 earliest = _openedAt(record.deadline) + _payoutDelaySeconds;
        if (block.timestamp < earliest) revert FLBTooEarly(earliest);
        _payoutRound = record.round;
        _payoutRoot = record.payoutRoot;
        emit PayoutActivated(record.round, record.payoutRoot);
    }

    /// @inheritdoc IFLBRewards
    function cancelPayout(uint32 round) external onlyOwner {
        uint32 next = _head.round;
        if (round >= next) revert FLBWrongRound(round, next);
        if (round <= _payoutRound) revert FLBNotNewer(round, _payoutRound);
        if (_cancelled[round]) revert FLBCancelled(round);
        _cancelled[round] = true;
        emit PayoutCancelled(round);
    }

    /// @inheritdoc IFLBRewards
    function claim(address node, uint256 cumulative, bytes32[] calldata proof) external nonReentrant {
        uint256 paid = _claimed[node];
        if (cumulative <= paid) revert FLBNothingToClaim(node);
        bytes32 leaf = keccak256(bytes.concat(keccak256(abi.encode(node, cumulative))));
        if (!MerkleProof.verifyCalldata(proof, _payoutRoot, leaf)) revert FLBProofInvalid();
        address payee = _members[node].payee;
        if (payee == address(0)) revert FLBNotMember(node);
        _claimed[node] = cumulative;
        emit Claimed(node, payee, cumulative - paid);
        _token().safeTransfer(payee, cumulative - paid);
    }

    /// @inheritdoc IFLBRewards
    function claimed(address node) external view returns (uint256) {
        return _claimed[node];
    }

    /// @inheritdoc IFLBRewards
    function payout() external view returns (uint32 round, bytes32 root) {
        return (_payoutRound, _payoutRoot);
    }

    /// @inheritdoc IFLBRewards
    function token() external view returns (address) {
        return address(_token());
    }

    /// @dev The argument that the factory appended to the clone's code: cheaper than a slot, which every claim would
    /// read cold.
    function _token() private view returns (IERC20) {
        return IERC20(abi.decode(Clones.fetchCloneArgs(address(this)), (address)));
    }
}
