// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";

import {FLBRun} from "../FLBRun.sol";
import {IFLBFactory} from "../interfaces/IFLBFactory.sol";
import {IFLBRewards} from "../interfaces/IFLBRewards.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {Base, Vm} from "./Base.t.sol";

/// @dev Making runs: minimal clones, initialized once, of a locked implementation.
contract FLBFactoryTest is Base {
    function test_createRun__settings__fixesThem() public view {
        eq(run.spec(), keccak256("spec"));
        eq(run.adapter(), keccak256("adapter"));
        eq(run.steps(), STEPS);
        (uint32 roundSeconds, uint32 graceSeconds, uint32 minRoundSeconds, uint32 delay) = run.windows();
        eq(roundSeconds, ROUND_SECONDS);
        eq(graceSeconds, GRACE_SECONDS);
        eq(minRoundSeconds, 0);
        eq(delay, 0);
        eq(run.owner(), OWNER);
        eq(run.aggregator(), AGGREGATOR);
        eq(run.admitter(), address(0));
        eq(run.token(), address(0));
        eqHead(0, 0, 0, false);
    }

    function test_createRun__anybody__saysWhatItMade() public {
        vm.recordLogs();
        address made = factory.createRun(settings(1, 1, 0));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 5); // RunCreated, OwnershipTransferred, AggregatorSet, EndpointSet, Initialized
        eq(logs[0].emitter, address(factory));
        eq(logs[0].topics[0], IFLBFactory.RunCreated.selector);
        eq(logs[0].topics[1], bytes32(uint256(uint160(made))));
        eq(logs[0].topics[2], bytes32(uint256(uint160(OWNER))));
        eq(logs[0].topics[3], keccak256("spec"));
        eq(logs[2].topics[0], IFLBRounds.AggregatorSet.selector);
        eq(keccak256(logs[2].data), keccak256(abi.encode(uint32(1))));
        eq(logs[3].topics[0], IFLBRounds.EndpointSet.selector);
        eq(keccak256(logs[3].data), keccak256(abi.encode("127.0.0.1:50051", bytes32(0), bytes32(0))));
    }

    function test_createRun__twice__makesTwoMinimalClones() public {
        FLBRun second = make(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        if (address(second) == address(run)) revert Different(0, 0);
        bytes memory code = abi.encodePacked(
            hex"363d3d373d3d3d363d73", factory.implementation(), hex"5af43d82803e903d91602b57fd5bf3", uint256(0)
        );
        eq(keccak256(address(run).code), keccak256(code));
        eq(keccak256(address(second).code), keccak256(code));
    }

    function test_initialize__clone__refusesASecondTime() public {
        vm.expectRevert(abi.encodeWithSelector(Initializable.InvalidInitialization.selector));
        vm.prank(OWNER);
        run.initialize(settings(1, 1, 1));
    }

    function test_initialize__implementation__isLocked() public {
        FLBRun implementation = FLBRun(factory.implementation());
        vm.expectRevert(abi.encodeWithSelector(Initializable.InvalidInitialization.selector));
        implementation.initialize(settings(1, 1, 1));
        expectUnauthorized(OWNER);
        vm.prank(OWNER);
        implementation.start();
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        implementation.roll(1, statement(1));
    }

    function test_createRun__zeroSetting__namesIt() public {
        IFLBRun.Settings memory s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.spec = 0;
        expectZero("spec");
        factory.createRun(s);

        s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.adapter = 0;
        expectZero("adapter");
        factory.createRun(s);

        s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.owner = address(0);
        expectZero("owner");
        factory.createRun(s);

        s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.aggregator = address(0);
        expectZero("aggregator");
        factory.createRun(s);

        expectZero("steps");
        factory.createRun(settings(0, ROUND_SECONDS, GRACE_SECONDS));

        expectZero("roundSeconds");
        factory.createRun(settings(STEPS, 0, GRACE_SECONDS));
    }

    function test_createRun__paidRun__fixesTokenAndWindows() public {
        run = FLBRun(factory.createRun(admission(OTHER, 10, 630)));
        (uint32 roundSeconds, uint32 graceSeconds, uint32 minRoundSeconds, uint32 delay) = run.windows();
        eq(roundSeconds, ROUND_SECONDS);
        eq(graceSeconds, GRACE_SECONDS);
        eq(minRoundSeconds, 10);
        eq(delay, 630);
        eq(run.admitter(), ADMITTER);
        eq(run.token(), OTHER);
        (uint32 round, bytes32 root) = run.payout();
        eq(round, 0);
        eq(root, 0);
    }

    function test_createRun__tokenAndOpenMembership__isRefused() public {
        IFLBRun.Settings memory s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.token = OTHER;
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBPayoutsNeedAdmission.selector));
        factory.createRun(s);
    }

    /// @dev 63 of the shortest rounds fit the ring for sure, and the shortest is no longer than the intake.
    function test_createRun__anyDelays__fitTheRing(uint32 roundSeconds, uint32 minRoundSeconds, uint32 delay) public {
        roundSeconds = uint32(bound(roundSeconds, 1, type(uint32).max));
        if (delay % 2 == 0) minRoundSeconds %= 2 ** 20; // else few delays are refused
        IFLBRun.Settings memory s = admission(OTHER, minRoundSeconds, delay);
        s.roundSeconds = roundSeconds;
        uint256 longest = 63 * uint256(minRoundSeconds);
        bool refused = minRoundSeconds > roundSeconds || delay > longest;
        if (minRoundSeconds > roundSeconds) expectTooLong(minRoundSeconds, roundSeconds);
        else if (delay > longest) expectTooLong(delay, uint32(longest));
        address made = factory.createRun(s);
        if (!refused) eq(FLBRun(made).token(), OTHER);
    }

    function expectTooLong(uint32 delay, uint32 longest) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBDelayTooLong.selector, delay, longest));
    }
}
