// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IERC20Errors} from "@openzeppelin/contracts/interfaces/draft-IERC6093.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";
import {ReentrancyGuardTransient} from "@openzeppelin/contracts/utils/ReentrancyGuardTransient.sol";

import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRewards} from "../interfaces/IFLBRewards.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {FLBToken} from "../token/FLBToken.sol";
import {Base} from "./Base.t.sol";
import {FalseToken, ReentrantToken, SilentToken} from "./HostileTokens.sol";
import {Trees} from "./Trees.sol";

/// @dev Payouts: when a root becomes active, and what a claim pays.
contract FLBRunRewardsTest is Base {
    uint32 private constant DELAY = 300;
    uint256 private constant FUNDS = 1_000;

    FLBToken private _token;

    function setUp() public override {
        super.setUp();
        _token = new FLBToken();
        pay(address(_token));
        _token.mint(address(run), FUNDS);
    }

    // -------------------------------------------------------------- activation

    function test_activatePayout__delayOver__makesTheRootActive() public {
        IFLBRounds.Sealed memory record = seal(1, keccak256("root"));
        warpTo(time + DELAY);
        vm.expectEmit(address(run));
        emit IFLBRewards.PayoutActivated(1, keccak256("root"));
        vm.prank(OTHER);
        run.activatePayout(record);
        (uint32 round, bytes32 root) = run.payout();
        eq(round, 1);
        eq(root, keccak256("root"));
    }

    function test_activatePayout__anyTime__waitsForTheDelay(uint16 passed) public {
        IFLBRounds.Sealed memory record = seal(1, keccak256("root"));
        uint40 earliest = time + DELAY;
        warpTo(uint40(bound(passed, time, time + 2 * DELAY)));
        bool early = time < earliest;
        if (early) expectTooEarly(earliest);
        run.activatePayout(record);
        (uint32 round,) = run.payout();
        eq(round, early ? 0 : 1);
    }

    function test_activatePayout__anyFieldChanged__isAMismatch(uint8 which, uint256 flip) public {
        IFLBRounds.Sealed memory record = seal(1, keccak256("root"));
        warpTo(time + DELAY);
        bytes32 bit = bytes32(1 << (flip % 256));
        which %= 11;
        if (which == 0) record.round += uint32(bound(flip, 1, 2 ** 30));
        else if (which == 1) record.previous ^= bit;
        else if (which == 2) record.recordDigest ^= bit;
        else if (which == 3) record.adapterDigest ^= bit;
        else if (which == 4) record.updatesRoot ^= bit;
        else if (which == 5) record.scoresRoot ^= bit;
        else if (which == 6) record.payoutRoot ^= bit;
        else if (which == 7) record.seed ^= bit;
        else if (which == 8) record.accepted ^= uint32(1 << (flip % 32));
        else if (which == 9) record.weightSum ^= uint64(1 << (flip % 64));
        else record.deadline ^= uint40(1 << (flip % 40));
        expectMismatch(record.round);
        run.activatePayout(record);
    }

    function test_activatePayout__roundOutOfTheRing__isAMismatch() public {
        run = FLBRun(factory.createRun(longRun()));
        start();
        IFLBRounds.Sealed memory first = seal(1, keccak256("first"));
        IFLBRounds.Sealed memory second = seal(2, keccak256("second"));
        for (uint32 round = 3; round <= 65; ++round) seal(round, 0);
        expectMismatch(1);
        run.activatePayout(first);
        run.activatePayout(second);
    }

    function test_activatePayout__olderOrSameRound__isRefused() public {
        IFLBRounds.Sealed memory first = seal(1, keccak256("first"));
        IFLBRounds.Sealed memory second = seal(2, keccak256("second"));
        warpTo(time + DELAY);
        run.activatePayout(second);
        expectNotNewer(1, 2);
        run.activatePayout(first);
        expectNotNewer(2, 2);
        run.activatePayout(second);
    }

    function test_activatePayout__noRootOrNoToken__isRefused() public {
        IFLBRounds.Sealed memory record = seal(1, 0);
        expectZero("payoutRoot");
        run.activatePayout(record);
        run = FLBRun(factory.createRun(admission(address(0), 0, 0)));
        start();
        record = seal(1, keccak256("root"));
        expectZero("token");
        run.activatePayout(record);
    }

    /// @dev A void round has a hash too, of another type, which no record matches.
    function test_activatePayout__voidRound__isAMismatch() public {
        IFLBRounds.Sealed memory record = seal(1, keccak256("root"));
        expire(2);
        record.round = 2;
        record.previous = run.recordHash(1);
        (,, record.deadline,) = run.head();
        record.seed = seedOf(3);
        expectMismatch(2);
        run.activatePayout(record);
    }

    function test_activatePayout__runThatHasEnded__isOpen() public {
        finish();
        IFLBRounds.Sealed memory record = seal(1, keccak256("root"));
        eqHead(0, 1, 0, true);
        warpTo(time + 1_000 * uint40(DELAY));
        run.activatePayout(record);
    }

    // -------------------------------------------------------------- cancelling

    function test_cancelPayout__owner__keepsTheRoundFromBecomingActive() public {
        IFLBRounds.Sealed memory first = seal(1, keccak256("first"));
        IFLBRounds.Sealed memory second = seal(2, keccak256("second"));
        vm.expectEmit(address(run));
        emit IFLBRewards.PayoutCancelled(1);
        cancel(1);
        warpTo(time + DELAY);
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBCancelled.selector, uint32(1)));
        run.activatePayout(first);
        run.activatePayout(second); // cumulative, and not cancelled with it
    }

    function test_cancelPayout__twiceActiveOrNotSealed__isRefused() public {
        IFLBRounds.Sealed memory first = seal(1, keccak256("first"));
        expectWrongRound(2, 2);
        cancel(2);
        warpTo(time + DELAY);
        run.activatePayout(first);
        expectNotNewer(1, 1);
        cancel(1);
        expectNotNewer(0, 1);
        cancel(0);
        seal(2, keccak256("second"));
        cancel(2);
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBCancelled.selector, uint32(2)));
        cancel(2);
    }

    // ------------------------------------------------------------------ claims

    function test_claim__anybody__paysThePayee() public {
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        vm.expectEmit(address(run));
        emit IFLBRewards.Claimed(NODE, PAYEE, 70);
        vm.prank(OTHER);
        run.claim(NODE, 70, proof);
        eq(_token.balanceOf(PAYEE), 70);
        eq(_token.balanceOf(address(run)), FUNDS - 70);
        eq(run.claimed(NODE), 70);
        expectNothing();
        run.claim(NODE, 70, proof);
    }

    /// @dev What the later root grants less what was paid, to whoever is the payee then; also after a removal.
    function test_claim__laterRound__paysTheDifferenceToTheNewPayee() public {
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        run.claim(NODE, 70, proof);
        vm.prank(PAYEE);
        run.setPayee(NODE, OTHER);
        vm.prank(OWNER);
        run.remove(NODE);
        (, proof) = payout(2, 100);
        run.claim(NODE, 100, proof);
        eq(_token.balanceOf(PAYEE), 70);
        eq(_token.balanceOf(OTHER), 30);
        (, proof) = payout(3, 90);
        expectNothing();
        run.claim(NODE, 90, proof);
    }

    function test_claim__wrongProof__isRefused() public {
        admit(NODE, PAYEE);
        expectProofInvalid();
        run.claim(NODE, 70, new bytes32[](0)); // nothing is active
        (bytes32[] memory tree, bytes32[] memory proof) = payout(1, 70);
        expectProofInvalid();
        run.claim(NODE, 71, proof);
        expectProofInvalid();
        run.claim(OTHER, 70, proof);
        expectProofInvalid();
        run.claim(NODE, 70, Trees.cut(proof, proof.length - 1));
        bytes32[] memory longer = new bytes32[](proof.length + 1);
        for (uint256 i = 0; i < proof.length; ++i) longer[i] = proof[i];
        longer[proof.length] = tree[0];
        expectProofInvalid();
        run.claim(NODE, 70, longer);
        proof[0] ^= bytes32(uint256(1));
        expectProofInvalid();
        run.claim(NODE, 70, proof);
    }

    /// @dev An inner node is a hash of 64 bytes, and so is what a leaf hashes last; the second hash keeps them apart.
    function test_claim__innerNodeAsLeaf__isRefused() public {
        (bytes32[] memory tree,) = payout(1, 70);
        bytes32[] memory proof = new bytes32[](1);
        (bytes32 low, bytes32 high) = tree[1] < tree[2] ? (tree[1], tree[2]) : (tree[2], tree[1]);
        proof[0] = tree[2];
        expectProofInvalid();
        run.claim(address(uint160(uint256(low))), uint256(high), proof);
        expectProofInvalid();
        run.claim(address(uint160(uint256(low))), uint256(high), new bytes32[](0));
    }

    function test_claim__neverAMember__hasNoPayee() public {
        (, bytes32[] memory proof) = payout(1, 70);
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBNotMember.selector, NODE));
        run.claim(NODE, 70, proof);
    }

    function test_claim__tooLittleFunds__paysAllOrNothing() public {
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, FUNDS + 1);
        vm.expectRevert(
            abi.encodeWithSelector(IERC20Errors.ERC20InsufficientBalance.selector, address(run), FUNDS, FUNDS + 1)
        );
        run.claim(NODE, FUNDS + 1, proof);
        eq(run.claimed(NODE), 0);
        _token.mint(address(run), 1);
        run.claim(NODE, FUNDS + 1, proof);
        eq(_token.balanceOf(PAYEE), FUNDS + 1);
    }

    function test_claim__largestAmount__doesNotOverflow() public {
        admit(NODE, PAYEE);
        _token.mint(address(run), type(uint256).max - FUNDS);
        (, bytes32[] memory proof) = payout(1, 1);
        run.claim(NODE, 1, proof);
        (, proof) = payout(2, type(uint256).max);
        run.claim(NODE, type(uint256).max, proof);
        eq(_token.balanceOf(PAYEE), type(uint256).max);
        eq(run.claimed(NODE), type(uint256).max);
    }

    // ---------------------------------------------------------- hostile tokens

    function test_claim__tokenThatReturnsFalse__paysNothing() public {
        address token = address(new FalseToken());
        pay(token);
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, token));
        run.claim(NODE, 70, proof);
        eq(run.claimed(NODE), 0);
    }

    function test_claim__addressWithoutCode__paysNothing() public {
        pay(OTHER);
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, OTHER));
        run.claim(NODE, 70, proof);
    }

    function test_claim__tokenThatReturnsNothing__pays() public {
        SilentToken token = new SilentToken();
        pay(address(token));
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        run.claim(NODE, 70, proof);
        eq(token.balanceOf(PAYEE), 70);
        eq(run.claimed(NODE), 70);
    }

    function test_claim__tokenThatReenters__isStopped() public {
        ReentrantToken token = new ReentrantToken();
        pay(address(token));
        admit(NODE, PAYEE);
        (, bytes32[] memory proof) = payout(1, 70);
        token.prepare(NODE, 70, proof);
        run.claim(NODE, 70, proof);
        eq(
            keccak256(token.answer()),
            keccak256(abi.encodeWithSelector(ReentrancyGuardTransient.ReentrancyGuardReentrantCall.selector))
        );
        eq(run.claimed(NODE), 70);
    }

    // ---------------------------------------------------------------- helpers

    /// @dev A run that pays `token`, started.
    function pay(address token) private {
        run = FLBRun(factory.createRun(admission(token, 10, DELAY)));
        start();
    }

    function longRun() private view returns (IFLBRun.Settings memory s) {
        s = admission(address(_token), 1, 0);
        s.steps = 100;
    }

    function admit(address node, address payee) private {
        IFLBMembers.Invite memory word = invite(ADMITTER_KEY, node, 0, time);
        vm.prank(node);
        run.join(payee, word);
    }

    function seal(uint32 round, bytes32 payoutRoot) private returns (IFLBRounds.Sealed memory record) {
        IFLBRounds.Roll memory r = statement(round);
        r.payoutRoot = payoutRoot;
        bytes32 previous = run.recordHash(round - 1);
        nextBlock();
        record = recordOf(round, previous, r);
        vm.prank(AGGREGATOR);
        run.roll(round, r);
    }

    /// @dev Seals and activates a round whose tree grants `cumulative` to NODE and something to four others.
    function payout(uint32 round, uint256 cumulative)
        private
        returns (bytes32[] memory tree, bytes32[] memory proof)
    {
        bytes32[] memory leaves = new bytes32[](5);
        leaves[0] = Trees.payoutLeaf(NODE, cumulative);
        for (uint256 i = 1; i < 5; ++i) leaves[i] = Trees.payoutLeaf(address(uint160(i)), i);
        tree = Trees.payouts(leaves);
        proof = Trees.payoutProof(tree, leaves[0]);
        IFLBRounds.Sealed memory record = seal(round, tree[0]);
        warpTo(time + DELAY);
        run.activatePayout(record);
    }

    function cancel(uint32 round) private {
        vm.prank(OWNER);
        run.cancelPayout(round);
    }

    function expectTooEarly(uint40 earliest) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBTooEarly.selector, earliest));
    }

    function expectMismatch(uint32 round) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBRecordMismatch.selector, round));
    }

    function expectNotNewer(uint32 round, uint32 active) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBNotNewer.selector, round, active));
    }

    function expectNothing() private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBNothingToClaim.selector, NODE));
    }

    function expectProofInvalid() private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRewards.FLBProofInvalid.selector));
    }
}
