// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {Base, Vm} from "./Base.t.sol";

/// @dev Signed messages: what they do, and why one is skipped.
contract FLBRunRelayTest is Base {
    uint256 private constant OTHER_KEY = 0xD1;
    uint256 private constant PAYEE_KEY = 0xD2;
    uint256 private constant ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
    uint256 private constant CHAIN = 31_337;
    bytes32 private constant ROOT = keccak256("data");

    function setUp() public override {
        super.setUp();
        nextBlock();
    }

    // ------------------------------------------------------------------ kinds

    function test_relay__join__isAsACall() public {
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeJoined(NODE, NODE, PAYEE, true);
        relay(signed(NODE_KEY, message(IFLBMembers.Kind.Join, 1, word(PAYEE), 0)));
        eqMember(NODE, PAYEE, IFLBMembers.Status.Active, 0);
        eqSeq(1);
    }

    function test_relay__everyKind__isAsACall() public {
        IFLBMembers.Message[] memory batch = new IFLBMembers.Message[](6);
        address key = addressOf(OTHER_KEY);
        batch[0] = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 7, 0, 0));
        batch[1] = signed(NODE_KEY, message(IFLBMembers.Kind.RegisterDataset, 8, ROOT, 10));
        batch[2] = signed(NODE_KEY, message(IFLBMembers.Kind.RevokeDataset, 9, ROOT, 0));
        batch[3] = signed(NODE_KEY, message(IFLBMembers.Kind.RotateKey, 10, word(key), 0));
        batch[4] = signed(OTHER_KEY, message(IFLBMembers.Kind.RegisterDataset, 11, ROOT, type(uint64).max));
        batch[5] = signed(OTHER_KEY, message(IFLBMembers.Kind.Leave, 90, 0, 0));
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeJoined(NODE, NODE, NODE, true);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRegistered(NODE, ROOT, 1, 10);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRevoked(NODE, ROOT);
        vm.expectEmit(address(run));
        emit IFLBMembers.KeyRotated(NODE, key);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRegistered(NODE, ROOT, 2, type(uint64).max);
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeLeft(NODE);
        run.relay(batch);
        eqMember(NODE, NODE, IFLBMembers.Status.Left, 2);
        eqSeq(90);
        eq(run.keyOf(NODE), key);
    }

    function test_relay__rotatedKey__joinsAgainUnderTheOldName() public {
        join(NODE);
        vm.prank(NODE);
        run.rotateKey(NODE, addressOf(OTHER_KEY));
        relay(signed(OTHER_KEY, message(IFLBMembers.Kind.Leave, 3, 0, 0)));
        expectUnauthorized(NODE);
        join(NODE);
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeJoined(NODE, addressOf(OTHER_KEY), NODE, true);
        relay(signed(OTHER_KEY, message(IFLBMembers.Kind.Join, 4, word(NODE), 0)));
    }

    function test_relay__payee__mayRotateTheKeyAndNothingElse() public {
        vm.prank(NODE);
        run.join(addressOf(PAYEE_KEY), none());
        IFLBMembers.Message memory m = signed(PAYEE_KEY, message(IFLBMembers.Kind.Leave, 2, 0, 0));
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        vm.expectEmit(address(run));
        emit IFLBMembers.KeyRotated(NODE, OTHER);
        relay(signed(PAYEE_KEY, message(IFLBMembers.Kind.RotateKey, 2, word(OTHER), 0)));
        eq(run.keyOf(NODE), OTHER);
    }

    function test_relay__nothing__doesNothing() public {
        vm.recordLogs();
        run.relay(new IFLBMembers.Message[](0));
        eq(vm.getRecordedLogs().length, 0);
    }

    // --------------------------------------------------------- time and number

    function test_relay__deadline__isGoodUpToIt() public {
        IFLBMembers.Message memory m = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 1, 0, 0));
        warpTo(time + 1);
        skipped(m, IFLBMembers.FLBExpired.selector);
        warpTo(time - 1);
        relay(m);
        eqSeq(1);
    }

    function test_relay__seqNotAbove__isReplayed() public {
        IFLBMembers.Message memory m = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 5, 0, 0));
        relay(m);
        skipped(m, IFLBMembers.FLBReplayed.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Leave, 4, 0, 0)), IFLBMembers.FLBReplayed.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Leave, 0, 0, 0)), IFLBMembers.FLBReplayed.selector);
    }

    /// @dev Who was given a message and did not bring it cannot bring it after the node has acted by call.
    function test_relay__olderThanACall__isReplayed() public {
        IFLBMembers.Message memory again = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 1, 0, 0));
        join(NODE);
        IFLBMembers.Message memory leaked = signed(NODE_KEY, message(IFLBMembers.Kind.RotateKey, 2, word(OTHER), 0));
        vm.prank(NODE);
        run.rotateKey(NODE, NODE);
        skipped(leaked, IFLBMembers.FLBReplayed.selector);
        vm.prank(NODE);
        run.leave(NODE);
        skipped(again, IFLBMembers.FLBReplayed.selector);
        eqSeq(3);
    }

    /// @dev At its end the number stays, and calls go on.
    function test_seq__atItsEnd__blocksNoCall() public {
        relay(signed(NODE_KEY, message(IFLBMembers.Kind.Join, type(uint32).max, 0, 0)));
        vm.prank(NODE);
        run.leave(NODE);
        join(NODE);
        eqSeq(type(uint32).max);
    }

    function test_relay__anyNumbersAndTimes__takesRisingOnesInTime(uint32[8] memory seqs, int8[8] memory late) public {
        join(NODE);
        uint32 last = 1;
        for (uint256 i = 0; i < 8; ++i) {
            uint32 seq = i % 2 == 0 ? seqs[i] : seqs[i] % 16;
            IFLBMembers.Message memory m = message(IFLBMembers.Kind.RevokeDataset, seq, ROOT, 0);
            m.deadline = uint40(int40(time) - late[i]);
            signed(NODE_KEY, m);
            if (late[i] > 0) skipped(m, IFLBMembers.FLBExpired.selector);
            else if (seq <= last) skipped(m, IFLBMembers.FLBReplayed.selector);
            else (last,) = (seq, relayed(m));
            eqSeq(last);
        }
    }

    // -------------------------------------------------------------- signatures

    function test_relay__stranger__isNamed() public {
        skipped(signed(OTHER_KEY, message(IFLBMembers.Kind.Join, 1, 0, 0)), IFLBMembers.FLBBadSignature.selector);
        eqMember(NODE, address(0), IFLBMembers.Status.None, 0);
        eqSeq(0);
    }

    /// @dev A signature that is none recovers to address zero, which is also the payee of a node that never joined.
    function test_relay__noSignature__joinsNotEvenNodeZero() public {
        IFLBMembers.Message memory m = message(IFLBMembers.Kind.Join, 1, 0, 0);
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        m.node = address(0);
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        m.kind = IFLBMembers.Kind.RotateKey;
        skipped(m, IFLBMembers.FLBBadSignature.selector);
    }

    function test_relay__highS__isRefused(uint256 key) public {
        key = bound(key, 1, ORDER - 1);
        IFLBMembers.Message memory m = message(IFLBMembers.Kind.Join, 1, 0, 0);
        m.node = addressOf(key);
        signed(key, m);
        uint256 s = uint256(m.vs) & (type(uint256).max >> 1);
        // the other signature of the same message, which every curve library takes as well
        (bytes32 r, bytes32 vs) = (m.r, bytes32((ORDER - s) | ((uint256(m.vs) >> 255 ^ 1) << 255)));
        if (ORDER - s >> 255 == 0) {
            m.vs = vs;
            skipped(m, IFLBMembers.FLBBadSignature.selector);
        }
        m.r = r;
        signed(key, m);
        relay(m);
        (,, IFLBMembers.Status status,,) = run.member(m.node);
        eq(uint8(status), uint8(IFLBMembers.Status.Active));
    }

    function test_relay__anyChange__isABadSignature(uint8 which, uint8 kind, uint256 flip) public {
        join(NODE);
        IFLBMembers.Message memory m = message(IFLBMembers.Kind(kind % 5), 2, word(OTHER), 3);
        signed(NODE_KEY, m);
        IFLBMembers.Kind other = IFLBMembers.Kind((kind % 5 + 1 + flip % 4) % 5);
        which %= 8;
        if (which == 0) m.kind = other;
        else if (which == 1) m.node = address(uint160(bound(flip, 1, 2 ** 100)));
        else if (which == 2) m.seq += uint32(bound(flip, 1, 2 ** 30));
        else if (which == 3) m.deadline += uint40(bound(flip, 1, 2 ** 30));
        else if (which == 4) m.subject ^= bytes32(1 << (flip % 160));
        else if (which == 5) m.records ^= uint64(1 << (flip % 64));
        else if (which == 6) m.r ^= bytes32(1 << (flip % 256));
        else m.vs ^= bytes32(1 << (flip % 256));
        // what a kind does not use is not signed
        bool unused = (which == 4 && m.kind == IFLBMembers.Kind.Leave)
            || (which == 5 && m.kind != IFLBMembers.Kind.RegisterDataset);
        if (unused) return;
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        eqSeq(1);
    }

    function test_relay__otherChainOrRun__isABadSignature() public {
        vm.chainId(CHAIN);
        IFLBMembers.Message memory m = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 1, 0, 0));
        FLBRun first = run;
        run = make(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        run = first;
        vm.chainId(CHAIN + 1);
        skipped(m, IFLBMembers.FLBBadSignature.selector);
        vm.chainId(CHAIN);
        relay(m);
        eqSeq(1);
    }

    // ------------------------------------------------------------------- acts

    /// @dev The same refusals as for the calls; nothing of the slot changes, so the number stays free.
    function test_relay__refusedAct__saysWhy() public {
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Leave, 1, 0, 0)), IFLBMembers.FLBNotMember.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RotateKey, 1, word(OTHER), 0)), IFLBMembers.FLBNotMember.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RegisterDataset, 1, ROOT, 1)), IFLBMembers.FLBNotMember.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RevokeDataset, 1, ROOT, 0)), IFLBMembers.FLBNotMember.selector);
        join(NODE);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Join, 2, 0, 0)), IFLBMembers.FLBAlreadyMember.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RotateKey, 2, 0, 0)), IFLBRounds.FLBZero.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RegisterDataset, 2, 0, 1)), IFLBRounds.FLBZero.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RegisterDataset, 2, ROOT, 0)), IFLBRounds.FLBZero.selector);
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.RevokeDataset, 2, 0, 0)), IFLBRounds.FLBZero.selector);
        relay(signed(NODE_KEY, message(IFLBMembers.Kind.Leave, 2, 0, 0)));
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Join, 3, word(OTHER), 0)), IFLBMembers.FLBPayeeFixed.selector);
        finish();
        skipped(signed(NODE_KEY, message(IFLBMembers.Kind.Join, 3, 0, 0)), IFLBRounds.FLBFinished.selector);
        eqSeq(2);
    }

    function test_relay__badOnesAmongGoodOnes__skipsThem() public {
        IFLBMembers.Message[] memory batch = new IFLBMembers.Message[](5);
        for (uint256 i = 0; i < 5; ++i) {
            batch[i] = message(IFLBMembers.Kind.Join, 1, 0, 0);
            batch[i].node = addressOf(0x1000 + i);
            signed(i == 1 || i == 3 ? OTHER_KEY : 0x1000 + i, batch[i]);
        }
        vm.recordLogs();
        run.relay(batch);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 5);
        for (uint256 i = 0; i < 5; ++i) {
            bool bad = i == 1 || i == 3;
            eq(logs[i].topics[0], bad ? IFLBMembers.RelaySkipped.selector : IFLBMembers.NodeJoined.selector);
            eq(logs[i].topics[1], word(batch[i].node));
            if (bad) eq(keccak256(logs[i].data), keccak256(abi.encode(i, IFLBMembers.FLBBadSignature.selector)));
            (,, IFLBMembers.Status status,,) = run.member(batch[i].node);
            eq(uint8(status), uint8(bad ? IFLBMembers.Status.None : IFLBMembers.Status.Active));
        }
    }

    function test_relay__invite__isCheckedAsInTheCall() public {
        run = FLBRun(factory.createRun(admission(address(0), 0, 0)));
        IFLBMembers.Message memory m = signed(NODE_KEY, message(IFLBMembers.Kind.Join, 1, 0, 0));
        skipped(m, IFLBMembers.FLBNotInvited.selector);
        m.invite = invite(ADMITTER_KEY, NODE, 0, time - 1);
        skipped(m, IFLBMembers.FLBExpired.selector);
        m.invite = invite(ADMITTER_KEY, NODE, 0, time);
        relay(m);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 0);
    }

    // ---------------------------------------------------------------- helpers

    function word(address subject) private pure returns (bytes32) {
        return bytes32(uint256(uint160(subject)));
    }

    function one(IFLBMembers.Message memory m) private pure returns (IFLBMembers.Message[] memory batch) {
        batch = new IFLBMembers.Message[](1);
        batch[0] = m;
    }

    function relay(IFLBMembers.Message memory m) private {
        vm.prank(OTHER);
        run.relay(one(m));
    }

    function relayed(IFLBMembers.Message memory m) private returns (bool) {
        relay(m);
        return true;
    }

    function skipped(IFLBMembers.Message memory m, bytes4 reason) private {
        vm.recordLogs();
        run.relay(one(m));
        Vm.Log[] memory logs = vm.getRecordedLogs();
        eq(logs.length, 1);
        eq(logs[0].topics[0], IFLBMembers.RelaySkipped.selector);
        eq(logs[0].topics[1], word(m.node));
        eq(keccak256(logs[0].data), keccak256(abi.encode(uint256(0), reason)));
    }

    function eqSeq(uint32 seq) private view {
        (, uint32 seq_,,,) = run.member(NODE);
        eq(seq_, seq);
    }
}
