// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRewards} from "../interfaces/IFLBRewards.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {Base} from "./Base.t.sol";

/// @dev What must hold for any input.
contract FLBRunFuzzTest is Base {
    /// @dev A reader that follows the events alone comes to the hashes that the contract keeps.
    function test_recordHash__anyRounds__chainsThem(IFLBRounds.Roll memory r, uint256 kinds, uint8 rounds) public {
        if (r.recordDigest == 0) r.recordDigest = bytes32(uint256(1));
        if (r.adapterDigest == 0) r.adapterDigest = bytes32(uint256(1));
        run = make(type(uint32).max, ROUND_SECONDS, GRACE_SECONDS);
        start();

        bytes32 previous;
        uint32 last = uint32(bound(rounds, 1, 80));
        for (uint32 round = 1; round <= last; ++round) {
            r.updatesRoot = keccak256(abi.encode(r.updatesRoot, round));
            bool sealed_ = (kinds >> round) & 1 == 0;
            if (!sealed_) warpTo(time + ROUND_SECONDS + GRACE_SECONDS);
            nextBlock();
            uint40 deadline = time + ROUND_SECONDS;
            bytes32 seed = seedOf(round + 1);
            bytes32 hash =
                sealed_ ? rollHash(round, previous, r, seed, deadline) : voidHash(round, previous, seed, deadline);
            if (sealed_) {
                vm.prank(AGGREGATOR);
                run.roll(round, r);
            } else {
                run.expire(round);
            }
            eq(run.recordHash(round), hash);
            previous = hash;
        }
    }

    /// @dev A change of any one stated value changes the record hash.
    function test_recordHash__oneWordChanged__differs(IFLBRounds.Roll memory r, uint8 which, uint256 flip) public {
        if (r.recordDigest == 0) r.recordDigest = bytes32(uint256(1));
        if (r.adapterDigest == 0) r.adapterDigest = bytes32(uint256(1));
        vm.assume(flip != 0);
        start();
        nextBlock();
        vm.prank(AGGREGATOR);
        run.roll(1, r);
        bytes32 hash = run.recordHash(1);

        bytes32[7] memory words = [
            r.recordDigest,
            r.adapterDigest,
            r.updatesRoot,
            r.scoresRoot,
            r.payoutRoot,
            bytes32(uint256(r.accepted)),
            bytes32(uint256(r.weightSum))
        ];
        uint256 index = which % 7;
        words[index] ^= bytes32(index == 5 ? uint32(flip) | 1 : index == 6 ? uint64(flip) | 1 : flip);
        (,, uint40 deadline,) = run.head();
        IFLBRounds.Roll memory other = IFLBRounds.Roll(
            words[0], words[1], words[2], words[3], words[4], uint32(uint256(words[5])), uint64(uint256(words[6]))
        );
        if (rollHash(1, 0, other, seedOf(2), deadline) == hash) revert Different(hash, hash);
        eq(rollHash(1, 0, r, seedOf(2), deadline), hash);
    }

    /// @dev A round may be rolled at any time while it is open, and expires from the end of its grace on.
    function test_expire__anyWindows__waitsForTheGrace(
        uint32 roundSeconds,
        uint32 graceSeconds,
        uint40 passed,
        bool rolled
    ) public {
        roundSeconds = uint32(bound(roundSeconds, 1, type(uint32).max));
        run = make(STEPS, roundSeconds, graceSeconds);
        start();
        uint40 earliest = time + roundSeconds + graceSeconds;
        eqHead(1, 0, time + roundSeconds, false);

        // half of the times lie within some seconds of the moment that decides
        uint40 soonest = earliest < time + 3 ? time : earliest - 3;
        warpTo(uint40(passed % 2 == 0 ? bound(passed / 2, soonest, earliest + 3) : time + passed % (1 << 34)));
        if (rolled) {
            vm.prank(AGGREGATOR);
            run.roll(1, statement(1));
            eqHead(2, 1, time + roundSeconds, false);
            return;
        }
        if (time < earliest) {
            vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBTooEarly.selector, earliest));
            run.expire(1);
            eqHead(1, 0, earliest - graceSeconds, false);
        } else {
            run.expire(1);
            eqHead(2, 0, time + roundSeconds, false);
        }
    }

    /// @dev A member fits one slot and survives any sequence of joining, leaving, removal and registering.
    function test_member__anySequence__isOneSlot(address node, uint256 choices, address payee, bytes32 root) public {
        vm.assume(node != address(0) && node != OWNER);
        if (root == 0) root = bytes32(uint256(1));
        address paid;
        uint32 datasets;
        uint32 seq;
        uint16 removals;
        bool active;
        IFLBMembers.Status status;
        for (uint256 i = 0; i < 32; ++i) {
            uint256 choice = (choices >> (8 * i)) % 4;
            bytes memory refused = choice == 0
                ? abi.encodeWithSelector(IFLBMembers.FLBAlreadyMember.selector, node)
                : abi.encodeWithSelector(IFLBMembers.FLBNotMember.selector, node);
            if (active == (choice == 0)) vm.expectRevert(refused);
            vm.prank(choice == 2 ? OWNER : node);
            if (choice == 0) run.join(payee, none());
            else if (choice == 1) run.leave(node);
            else if (choice == 2) run.remove(node);
            else run.registerDataset(node, root, 1);

            if (active != (choice == 0)) {
                if (choice == 3) ++datasets;
                else active = choice == 0;
                if (choice == 2) ++removals;
                else ++seq;
                status = active ? IFLBMembers.Status.Active : IFLBMembers.Status.Left;
                paid = payee == address(0) ? node : payee;
            }
            eqMember(node, paid, status, datasets);
            uint256 slot = uint160(paid) | (uint256(seq) << 160) | (uint256(datasets) << 192) | (uint256(removals) << 224)
                | (uint256(status) << 240);
            eq(vm.load(address(run), keccak256(abi.encode(node, MEMBERS_SLOT))), bytes32(slot));
        }
    }

    /// @dev Nobody but the aggregator rolls, nobody but the owner starts, finishes and names an aggregator.
    function test_roles__anybody__isRefused(address caller, uint32 round) public {
        // nobody sends from address zero, which is the admitter of an open run
        vm.assume(caller != OWNER && caller != AGGREGATOR && caller != address(0) && caller != NODE);
        start();
        join(NODE);
        bytes[12] memory calls = [
            abi.encodeCall(IFLBRounds.start, ()),
            abi.encodeCall(IFLBRounds.roll, (round, statement(round))),
            abi.encodeCall(IFLBRounds.finish, ()),
            abi.encodeCall(IFLBRounds.setAggregator, (caller)),
            abi.encodeCall(IFLBRounds.setEndpoint, ("", 0, 0)),
            abi.encodeCall(IFLBMembers.remove, (NODE)),
            abi.encodeCall(IFLBMembers.setAdmitter, (caller)),
            abi.encodeCall(IFLBRewards.cancelPayout, (round)),
            abi.encodeCall(IFLBMembers.leave, (NODE)),
            abi.encodeCall(IFLBMembers.rotateKey, (NODE, caller)),
            abi.encodeCall(IFLBMembers.setPayee, (NODE, caller)),
            abi.encodeCall(IFLBMembers.revokeDataset, (NODE, bytes32(uint256(1))))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(caller);
            (bool done, bytes memory answer) = address(run).call(calls[i]);
            eq(done ? 1 : 0, 0);
            eq(keccak256(answer), keccak256(abi.encodeWithSelector(IFLBRounds.FLBUnauthorized.selector, caller)));
        }
    }
}
