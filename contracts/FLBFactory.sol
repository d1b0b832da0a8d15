// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";

import {FLBRun} from "./FLBRun.sol";
import {IFLBFactory} from "./interfaces/IFLBFactory.sol";
import {IFLBRun} from "./interfaces/IFLBRun.sol";

/// @title Makes runs
contract FLBFactory is IFLBFactory {
    /// @inheritdoc IFLBFactory
    address public immutable implementation = address(new FLBRun());

    /// @inheritdoc IFLBFactory
    function createRun(IFLBRun.Settings calldata settings) external returns (address run) {
        run = Clones.cloneWithImmutableArgs(implementation, abi.encode(settings.token));
        emit RunCreated(run, settings.owner, settings.spec);
        IFLBRun(run).initialize(settings);
    }
}
