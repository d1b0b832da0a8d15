// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";

import {FLBRewards} from "./FLBRewards.sol";
import {IFLBRun} from "./interfaces/IFLBRun.sol";

/// @title The registry of one federated run
/// @notice Meant to be used through a clone (`FLBFactory`); the implementation itself is locked.
contract FLBRun is FLBRewards, Initializable {
    constructor() Ownable(address(1)) {
        _disableInitializers();
    }

    /// @inheritdoc IFLBRun
    function initialize(Settings calldata settings) external initializer {
        _initializeRounds(settings);
        _initializeMembers(settings.admitter);
        _initializeRewards(settings.admitter);
    }
}
