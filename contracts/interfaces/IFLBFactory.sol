// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRun} from "./IFLBRun.sol";

/// @title Makes runs
/// @notice Every run is a minimal clone (ERC-1167) of one implementation, with the address of its token appended to its
/// code, initialized in the transaction that makes it.
interface IFLBFactory {
    /// @notice `run` was made for `owner` with spec digest `spec`.
    event RunCreated(address indexed run, address indexed owner, bytes32 indexed spec);

    /// @notice Makes and initializes a run.
    function createRun(IFLBRun.Settings calldata settings) external returns (address run);

    /// @notice What every run is a clone of.
    function implementation() external view returns (address);
}
