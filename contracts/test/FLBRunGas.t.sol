// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {Base} from "./Base.t.sol";

/// @dev Bounds on the gas of `roll` through the clone, as a transaction pays it. Each test makes one roll, so that
/// every slot is as cold as in a transaction of its own. A transaction adds 21,000 and its calldata, and does not pay
/// for the cold access to the clone; what is left over is below 100 gas.
contract FLBRunGasTest is Base {
    uint256 private constant RING_FILLING = 70_000;
    uint256 private constant RING_FULL = 50_000;
    uint256 private constant COLD_ACCESS = 2_600;

    IFLBRun private _filling;
    IFLBRun private _full;

    function setUp() public override {
        super.setUp();
        run = make(200, ROUND_SECONDS, GRACE_SECONDS);
        start();
        for (uint32 round = 1; round <= RING; ++round) {
            roll(round);
        }
        _full = run;

        run = make(200, ROUND_SECONDS, GRACE_SECONDS);
        start();
        roll(1);
        _filling = run;
        nextBlock();
    }

    function test_roll__ringFilling__costsAtMost70k() public {
        within(cost(_filling, 2), RING_FILLING);
    }

    function test_roll__ringFull__costsAtMost50k() public {
        within(cost(_full, uint32(RING) + 1), RING_FULL);
    }

    function cost(IFLBRun run_, uint32 round) private returns (uint256) {
        bytes memory data = abi.encodeCall(IFLBRounds.roll, (round, statement(round)));
        vm.prank(AGGREGATOR);
        uint256 before = gasleft();
        (bool done,) = address(run_).call(data);
        uint256 used = before - gasleft();
        eq(done ? 1 : 0, 1);
        for (uint256 i = 0; i < data.length; ++i) {
            used += data[i] == 0 ? 4 : 16;
        }
        return 21_000 + used - COLD_ACCESS;
    }

    /// @dev The lower bound keeps a measurement that finds warm slots from passing.
    function within(uint256 used, uint256 most) private pure {
        if (used > most || used < most - 8_000) revert Different(bytes32(used), bytes32(most));
    }
}
