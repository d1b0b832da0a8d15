// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRounds} from "./IFLBRounds.sol";

/// @title The payouts of a federated run
/// @notice A sealed round may carry the root of a tree of what each node has earned since the start. The root counts
/// once it was activated; a claim then pays what is new since the last claim to the node's present payee.
/// @dev The tree is OpenZeppelin's StandardMerkleTree over [address node, uint256 cumulative]. The run pays from its own
/// balance of the token: whoever funds the run sends tokens to its address, and nothing but a claim takes them out.
interface IFLBRewards {
    // ----------------------------------------------------------------- events

    /// @notice Claims are checked against `root` of `round` from now on.
    event PayoutActivated(uint32 indexed round, bytes32 root);

    /// @notice The payout of `round` will never be active. The ones after it are cumulative and stand.
    event PayoutCancelled(uint32 indexed round);

    /// @notice `amount` of the token was paid to `payee` for `node`.
    event Claimed(address indexed node, address indexed payee, uint256 amount);

    // ----------------------------------------------------------------- errors

    /// @notice Payouts in a token need membership by admission: where anybody may join, one may join many times.
    error FLBPayoutsNeedAdmission();
    /// @notice The payout of `active` is active already, and `round` is not newer.
    error FLBNotNewer(uint32 round, uint32 active);
    /// @notice The owner cancelled the payout of `round`.
    error FLBCancelled(uint32 round);
    /// @notice Everything that the leaf grants `node` was paid.
    error FLBNothingToClaim(address node);
    /// @notice The proof does not lead from the leaf to the active root.
    error FLBProofInvalid();

    // -------------------------------------------------------------- functions

    /// @notice Makes the payout root of a sealed round the active one. Anyone, from `payoutDelaySeconds` after the seal
    /// on, while the ring of 64 still holds the round, and only for a newer round than the active one.
    function activatePayout(IFLBRounds.Sealed calldata record) external;

    /// @notice Keeps the payout of a sealed round from becoming active. Owner only, before it is.
    function cancelPayout(uint32 round) external;

    /// @notice Pays what `node` has earned up to the active round and was not paid yet to its payee. Anyone, always.
    /// @param node The node.
    /// @param cumulative What its leaf grants it since the start of the run, in the token's smallest unit.
    /// @param proof Proof of the leaf, as StandardMerkleTree gives it.
    function claim(address node, uint256 cumulative, bytes32[] calldata proof) external;

    // ------------------------------------------------------------------ views

    /// @notice What was paid for `node` so far, in the token's smallest unit.
    function claimed(address node) external view returns (uint256);

    /// @notice The round whose payout is active, and its root; zero before the first.
    function payout() external view returns (uint32 round, bytes32 root);

    /// @notice The ERC-20 that is paid out, zero where nothing is.
    function token() external view returns (address);
}
