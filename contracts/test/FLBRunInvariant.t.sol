// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {Base} from "./Base.t.sol";

/// @dev Does things to a run in any order, and notes what a careful reader would have seen.
contract Handler is Base {
    uint32 public constant LIMIT = 1_000;

    mapping(uint32 round => bytes32) public seen;
    uint32 public ended;
    uint32 public voids;
    bool public jumped;

    constructor() {
        arrange();
        run = make(LIMIT, ROUND_SECONDS, GRACE_SECONDS);
    }

    /// @dev The campaign calls every public function of its target: this one must not make another run.
    function setUp() public override {}

    function theRun() external view returns (IFLBRun) {
        return run;
    }

    function begin() external {
        attempt(OWNER, abi.encodeCall(IFLBRounds.start, ()), 0);
    }

    function rollSome(uint8 count) external {
        for (uint256 i = 0; i < count % 16; ++i) {
            nextBlock();
            (uint32 open,,,) = run.head();
            attempt(AGGREGATOR, abi.encodeCall(IFLBRounds.roll, (open, statement(open))), open);
        }
    }

    function rollAny(uint32 round, address caller) external {
        nextBlock();
        attempt(caller, abi.encodeCall(IFLBRounds.roll, (round % 128, statement(round))), round % 128);
    }

    function expireAfter(uint16 passed) external {
        nextBlock();
        warpTo(time + passed % 512);
        (uint32 open,,,) = run.head();
        if (attempt(OTHER, abi.encodeCall(IFLBRounds.expire, (open)), open)) ++voids;
    }

    function end(uint8 chance) external {
        if (chance != 7) return;
        attempt(OWNER, abi.encodeCall(IFLBRounds.finish, ()), 0);
    }

    function handOver(bool back) external {
        attempt(OWNER, abi.encodeCall(IFLBRounds.setAggregator, (back ? AGGREGATOR : OTHER)), 0);
    }

    /// @dev `closes` is the round that success ends, zero where the call ends none.
    function attempt(address caller, bytes memory data, uint32 closes) private returns (bool done) {
        (uint32 open,,, bool finished) = run.head();
        vm.prank(caller);
        (done,) = address(run).call(data);
        (uint32 now_,,, bool finishedNow) = run.head();
        if (done && closes != 0) {
            if (closes != open || closes != ended + 1) jumped = true;
            if (!finishedNow && now_ != open + 1) jumped = true;
            ended = closes;
            seen[closes] = run.recordHash(closes);
        } else if (now_ != open && !(done && open == 0 && now_ == 1 && !finished)) {
            jumped = true;
        }
    }
}

/// @dev Rounds grow by one and end once; what the ring holds never changes.
contract FLBRunInvariantTest is Base {
    Handler private _handler;

    function setUp() public override {
        _handler = new Handler();
        _handler.begin();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function invariant_rounds__growByOne() public view {
        eq(_handler.jumped() ? 1 : 0, 0);
        (uint32 open, uint32 sealed_,, bool finished) = _handler.theRun().head();
        if (!finished) eq(open, _handler.ended() + 1);
        else eq(open, 0);
        eq(sealed_, _handler.ended() - _handler.voids());
    }

    function invariant_recordHash__neverChangesInTheRing() public view {
        IFLBRun theRun = _handler.theRun();
        uint32 ended = _handler.ended();
        for (uint32 round = ended > 70 ? ended - 70 : 0; round <= ended + 1; ++round) {
            bool kept = round != 0 && round <= ended && round + RING > ended;
            eq(theRun.recordHash(round), kept ? _handler.seen(round) : bytes32(0));
        }
    }
}
