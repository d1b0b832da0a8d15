// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRewards} from "../interfaces/IFLBRewards.sol";

/// @dev Says that it did not pay.
contract FalseToken {
    function transfer(address, uint256) external pure returns (bool) {
        return false;
    }
}

/// @dev Pays and says nothing, as some old tokens do.
contract SilentToken {
    mapping(address account => uint256) public balanceOf;

    function transfer(address to, uint256 amount) external {
        balanceOf[to] += amount;
    }
}

/// @dev Claims once more while it pays.
contract ReentrantToken {
    bytes private _call;
    bytes public answer;

    function prepare(address node, uint256 cumulative, bytes32[] calldata proof) external {
        _call = abi.encodeCall(IFLBRewards.claim, (node, cumulative, proof));
    }

    function transfer(address, uint256) external returns (bool) {
        (bool done, bytes memory told) = msg.sender.call(_call);
        require(!done);
        answer = told;
        return true;
    }
}
