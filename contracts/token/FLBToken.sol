// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A TOKEN WITHOUT ANY VALUE, FOR LOCAL CHAINS AND TESTS ONLY
/// @notice ANYBODY MAY MINT ANY AMOUNT TO ANYBODY. Never pay out with it where the payment shall mean something.
contract FLBToken is ERC20 {
    constructor() ERC20("FLB worthless test token", "FLBTEST") {}

    /// @notice Makes `amount` of the token for `to`. Anyone, without a limit.
    function mint(address to, uint256 amount) external {
        _mint(to, amount);
    }
}
