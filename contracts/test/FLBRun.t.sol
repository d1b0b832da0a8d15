// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBRun} from "../FLBRun.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {Base, Vm} from "./Base.t.sol";

/// @dev The life of a run: start, roll, expire, finish, and who may do so.
contract FLBRunTest is Base {
    // ------------------------------------------------------------------ start

    function test_start__owner__opensRoundOne() public {
        nextBlock();
        vm.expectEmit(address(run));
        emit IFLBRounds.RunStarted(keccak256("spec"), keccak256("adapter"), seedOf(1), time + ROUND_SECONDS);
        vm.prank(OWNER);
        run.start();
        eqHead(1, 0, time + ROUND_SECONDS, false);
    }

    function test_start__twice__isRefused() public {
        start();
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBAlreadyStarted.selector));
        vm.prank(OWNER);
        run.start();
    }

    function test_start__notOwner__isRefused() public {
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        run.start();
    }

    function test_start__newOwner__mayAfterAccepting() public {
        vm.prank(OWNER);
        run.transferOwnership(OTHER);
        expectUnauthorized(OTHER);
        vm.prank(OTHER);
        run.start();

        vm.prank(OTHER);
        run.acceptOwnership();
        expectUnauthorized(OWNER);
        vm.prank(OWNER);
        run.start();
        vm.prank(OTHER);
        run.start();
        eqHead(1, 0, time + ROUND_SECONDS, false);
    }

    // ------------------------------------------------------------------- roll

    function test_roll__openRound__sealsItAndOpensTheNext() public {
        start();
        nextBlock();
        IFLBRounds.Roll memory r = statement(1);
        bytes32 seed = seedOf(2);
        uint40 deadline = time + ROUND_SECONDS;
        bytes32 hash = rollHash(1, 0, r, seed, deadline);
        vm.expectEmit(address(run));
        emit IFLBRounds.RoundRolled(
            1,
            hash,
            r.recordDigest,
            r.adapterDigest,
            r.updatesRoot,
            r.scoresRoot,
            r.payoutRoot,
            seed,
            r.accepted,
            r.weightSum,
            deadline
        );
        vm.recordLogs();
        vm.prank(AGGREGATOR);
        run.roll(1, r);
        eq(vm.getRecordedLogs().length, 1);
        eqHead(2, 1, deadline, false);
        eq(run.recordHash(1), hash);
        eq(run.recordHash(2), 0);
    }

    function test_roll__lastStep__endsTheRun() public {
        start();
        roll(1);
        expire(2); // a void round is no step
        roll(3);
        bytes32 previous = run.recordHash(3);
        nextBlock();
        bytes32 hash = rollHash(4, previous, statement(4), seedOf(5), time + ROUND_SECONDS);
        vm.recordLogs();
        vm.prank(AGGREGATOR);
        run.roll(4, statement(4));

        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 2);
        eq(logs[0].topics[0], IFLBRounds.RoundRolled.selector);
        eq(logs[1].topics[0], IFLBRounds.RunFinished.selector);
        eq(logs[1].topics[1], bytes32(uint256(4)));
        eq(keccak256(logs[1].data), keccak256(abi.encode(hash)));
        eqHead(0, 3, 0, true);
        if (run.recordHash(1) == 0) revert Different(0, 0);
        eq(run.recordHash(4), hash);

        for (uint32 round = 0; round <= 6; ++round) {
            expectWrongRound(round, 0);
            vm.prank(AGGREGATOR);
            run.roll(round, statement(round));
            expectWrongRound(round, 0);
            run.expire(round);
        }
    }

    function test_roll__afterTheGrace__isValidUntilExpired() public {
        start();
        warpTo(time + 10 * (ROUND_SECONDS + GRACE_SECONDS));
        roll(1);
        eqHead(2, 1, time + ROUND_SECONDS, false);
    }

    function test_roll__beforeTheShortestRound__saysWhen() public {
        run = FLBRun(factory.createRun(admission(address(0), 10, 0)));
        start();
        warpTo(time + 9);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBTooEarly.selector, time + 1));
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
        warpTo(time + 1);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
        eqHead(2, 1, time + ROUND_SECONDS, false);
    }

    function test_roll__otherThanTheOpenRound__isRefused() public {
        expectWrongRound(0, 0);
        vm.prank(AGGREGATOR);
        run.roll(0, statement(0));
        expectWrongRound(1, 0);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));

        start();
        roll(1);
        expectWrongRound(1, 2);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
        expectWrongRound(3, 2);
        vm.prank(AGGREGATOR);
        run.roll(3, statement(3));
    }

    function test_roll__loserOfTheRaceWithExpire__isRefused() public {
        start();
        expire(1);
        expectWrongRound(1, 2);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
    }

    function test_roll__notAggregator__isRefused() public {
        start();
        expectUnauthorized(OWNER);
        vm.prank(OWNER);
        run.roll(1, statement(1));
    }

    function test_roll__missingDigest__namesIt() public {
        start();
        IFLBRounds.Roll memory r = statement(1);
        r.recordDigest = 0;
        expectZero("recordDigest");
        vm.prank(AGGREGATOR);
        run.roll(1, r);
        r = statement(1);
        r.adapterDigest = 0;
        expectZero("adapterDigest");
        vm.prank(AGGREGATOR);
        run.roll(1, r);
    }

    function test_rollHash__knownInputs__equalsFlbRecords() public pure {
        // roll_hash and void_hash of flb/records.py give the same two values for these inputs
        IFLBRounds.Roll memory r = IFLBRounds.Roll(word(2), word(3), word(4), word(5), word(6), 8, 9);
        bytes32 hash = rollHash(7, word(1), r, word(7), 1_800_000_000);
        eq(hash, 0xb7069691f59350f6de56ed725dcbd1331e16c86e6088cc18b57304d90e4f35aa);
        hash = voidHash(7, word(1), word(7), 1_800_000_000);
        eq(hash, 0x24d154bcc87b55f6d47351ff274853247c01de7bc7509dfc69765dd25539ac02);
    }

    function word(uint8 octet) private pure returns (bytes32) {
        return bytes32(uint256(octet) * (type(uint256).max / 255));
    }

    // ----------------------------------------------------------------- expire

    function test_expire__graceOver__voidsTheRoundAndOpensTheNext() public {
        start();
        roll(1);
        (,, uint40 closed,) = run.head();
        nextBlock();
        warpTo(closed + GRACE_SECONDS);
        bytes32 seed = seedOf(3);
        uint40 deadline = time + ROUND_SECONDS;
        bytes32 hash = voidHash(2, run.recordHash(1), seed, deadline);
        vm.expectEmit(address(run));
        emit IFLBRounds.RoundVoided(2, hash, seed, deadline);
        vm.recordLogs();
        vm.prank(OTHER);
        run.expire(2);
        eq(vm.getRecordedLogs().length, 1);
        eqHead(3, 1, deadline, false);
        eq(run.recordHash(2), hash);
    }

    function test_expire__inTheGrace__saysWhen() public {
        start();
        uint40 earliest = time + ROUND_SECONDS + GRACE_SECONDS;
        warpTo(earliest - 1);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBTooEarly.selector, earliest));
        run.expire(1);
    }

    function test_expire__otherThanTheOpenRound__isRefused() public {
        expectWrongRound(1, 0);
        run.expire(1);
        start();
        warpTo(time + ROUND_SECONDS + GRACE_SECONDS);
        expectWrongRound(2, 1);
        run.expire(2);
    }

    function test_expire__asManyVoidsAsTheHeadCounts__endsTheRun() public {
        start();
        roll(1);
        setRoundAndVoids(65_535, 65_533);
        eqHead(65_535, 1, time + ROUND_SECONDS, false);
        expire(65_535);
        eqHead(65_536, 1, time + ROUND_SECONDS, false);
        vm.recordLogs();
        expire(65_536);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs[0].topics[0], IFLBRounds.RoundVoided.selector);
        eq(logs[1].topics[0], IFLBRounds.RunFinished.selector);
        eqHead(0, 1, 0, true);
    }

    /// @dev As after that many rounds: the head slot holds the round in its low 32 bits and the voids in the next 16.
    function setRoundAndVoids(uint32 round, uint16 voids) private {
        uint256 head = uint256(vm.load(address(run), HEAD_SLOT));
        vm.store(address(run), HEAD_SLOT, bytes32(((head >> 48) << 48) | (uint256(voids) << 32) | round));
    }

    // ----------------------------------------------------------------- finish

    function test_finish__beforeStart__endsTheRunAtOnce() public {
        vm.expectEmit(address(run));
        emit IFLBRounds.RunFinished(0, 0);
        finish();
        eqHead(0, 0, 0, true);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        vm.prank(OWNER);
        run.start();
        expectWrongRound(1, 0);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        finish();
    }

    function test_finish__openRound__isTheLastToRoll() public {
        start();
        uint40 deadline = time + ROUND_SECONDS;
        vm.expectEmit(address(run));
        emit IFLBRounds.RunFinishing(1);
        finish();
        eqHead(1, 0, deadline, false);

        nextBlock();
        bytes32 hash = rollHash(1, 0, statement(1), seedOf(2), time + ROUND_SECONDS);
        vm.expectEmit(address(run));
        emit IFLBRounds.RunFinished(1, hash);
        vm.prank(AGGREGATOR);
        run.roll(1, statement(1));
        eqHead(0, 1, 0, true);
        eq(run.recordHash(1), hash);
    }

    function test_finish__openRoundExpires__endsTheRun() public {
        start();
        roll(1);
        finish();
        vm.recordLogs();
        expire(2);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 2);
        eq(logs[0].topics[0], IFLBRounds.RoundVoided.selector);
        eq(logs[1].topics[0], IFLBRounds.RunFinished.selector);
        eq(logs[1].topics[1], bytes32(uint256(2)));
        eq(keccak256(logs[1].data), keccak256(abi.encode(run.recordHash(2))));
        eqHead(0, 1, 0, true);
    }

    function test_finish__again__saysNothingNew() public {
        start();
        finish();
        vm.recordLogs();
        finish();
        eq(vm.getRecordedLogs().length, 0);
        roll(1);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        finish();
    }

    function test_finish__notOwner__isRefused() public {
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        run.finish();
    }

    // ------------------------------------------------- aggregator and endpoint

    function test_setAggregator__beforeStart__countsFromRoundOne() public {
        vm.expectEmit(address(run));
        emit IFLBRounds.AggregatorSet(OTHER, 1);
        setAggregator(OTHER);
        eq(run.aggregator(), OTHER);
    }

    function test_setAggregator__openRound__countsFromTheNextOpening() public {
        start();
        vm.expectEmit(address(run));
        emit IFLBRounds.AggregatorSet(OTHER, 2);
        setAggregator(OTHER);
        eq(run.aggregator(), AGGREGATOR);
        expectUnauthorized(OTHER);
        vm.prank(OTHER);
        run.roll(1, statement(1));

        roll(1);
        eq(run.aggregator(), OTHER);
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        run.roll(2, statement(2));
        vm.prank(OTHER);
        run.roll(2, statement(2));
        eqHead(3, 2, time + ROUND_SECONDS, false);
        eq(run.aggregator(), OTHER);
    }

    function test_setAggregator__roundExpires__countsFromThatOpening() public {
        start();
        setAggregator(OTHER);
        expire(1);
        eq(run.aggregator(), OTHER);
    }

    function test_setAggregator__twiceInARound__lastCounts() public {
        start();
        setAggregator(OTHER);
        setAggregator(PAYEE);
        roll(1);
        eq(run.aggregator(), PAYEE);
    }

    function test_setAggregator__noOpeningFollows__changesNothing() public {
        start();
        finish();
        setAggregator(OTHER);
        roll(1);
        eq(run.aggregator(), AGGREGATOR);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        setAggregator(OTHER);
    }

    function test_setAggregator__zeroOrNotOwner__isRefused() public {
        expectZero("aggregator");
        setAggregator(address(0));
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        run.setAggregator(OTHER);
    }

    function test_setEndpoint__ownerOrAggregator__publishesIt() public {
        for (uint256 i = 0; i < 2; ++i) {
            vm.expectEmit(address(run));
            emit IFLBRounds.EndpointSet("example.org:443", keccak256("now"), keccak256("next"));
            vm.prank(i == 0 ? OWNER : AGGREGATOR);
            run.setEndpoint("example.org:443", keccak256("now"), keccak256("next"));
        }
    }

    function test_setEndpoint__anybodyElse__isRefused() public {
        expectUnauthorized(ADMITTER);
        vm.prank(ADMITTER);
        run.setEndpoint("", 0, 0);
    }

    function setAggregator(address aggregator) private {
        vm.prank(OWNER);
        run.setAggregator(aggregator);
    }

    // ------------------------------------------------------------------- ring

    function test_recordHash__moreRoundsThanTheRing__keepsTheLast64() public {
        run = make(200, ROUND_SECONDS, GRACE_SECONDS);
        start();
        bytes32[] memory hashes = new bytes32[](132);
        for (uint32 round = 1; round <= 131; ++round) {
            eq(run.recordHash(round), 0);
            if (round % 10 == 3) expire(round);
            else roll(round);
            hashes[round] = run.recordHash(round);
            if (hashes[round] == hashes[round - 1] || hashes[round] == 0) revert Different(hashes[round], 0);
        }
        for (uint32 round = 0; round <= 131; ++round) {
            eq(run.recordHash(round), round + RING > 131 ? hashes[round] : bytes32(0));
        }
    }
}
