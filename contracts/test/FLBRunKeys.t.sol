// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {Base} from "./Base.t.sol";

/// @dev Keys, payees, admission: who may change what about a member.
contract FLBRunKeysTest is Base {
    bytes32 private constant ROOT = keccak256("data");
    uint256 private constant OTHER_KEY = 0xD1;

    // -------------------------------------------------------------------- keys

    function test_rotateKey__key__handsOver() public {
        join(NODE);
        eq(run.keyOf(NODE), NODE);
        vm.expectEmit(address(run));
        emit IFLBMembers.KeyRotated(NODE, OTHER);
        rotate(NODE, OTHER);
        eq(run.keyOf(NODE), OTHER);

        expectUnauthorized(NODE);
        vm.prank(NODE);
        run.registerDataset(NODE, ROOT, 1);
        expectUnauthorized(NODE);
        vm.prank(NODE);
        run.leave(NODE);
        vm.prank(OTHER);
        run.registerDataset(NODE, ROOT, 1);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRevoked(NODE, ROOT);
        vm.prank(OTHER);
        run.revokeDataset(NODE, ROOT);
        vm.prank(OTHER);
        run.leave(NODE);
        eqMember(NODE, NODE, IFLBMembers.Status.Left, 1);
    }

    /// @dev The payee of a node whose key was stolen takes the node back, also after it has left.
    function test_rotateKey__payee__takesTheNodeBack() public {
        vm.prank(NODE);
        run.join(PAYEE, none());
        rotate(NODE, OTHER);
        rotate(PAYEE, AGGREGATOR);
        expectUnauthorized(OTHER);
        vm.prank(OTHER);
        run.leave(NODE);
        vm.prank(AGGREGATOR);
        run.leave(NODE);
        rotate(PAYEE, NODE);
        eq(run.keyOf(NODE), NODE);
        join(NODE);
        eqMember(NODE, PAYEE, IFLBMembers.Status.Active, 0);
    }

    function test_rotateKey__strangerZeroOrNeverMember__isRefused() public {
        expectNotMember(NODE);
        rotate(NODE, OTHER);
        join(NODE);
        expectUnauthorized(OTHER);
        rotate(OTHER, OTHER);
        expectZero("key");
        rotate(NODE, address(0));
    }

    function test_setPayee__payee__handsOver() public {
        vm.prank(NODE);
        run.join(PAYEE, none());
        vm.prank(NODE);
        run.leave(NODE);
        vm.expectEmit(address(run));
        emit IFLBMembers.PayeeSet(NODE, OTHER);
        vm.prank(PAYEE);
        run.setPayee(NODE, OTHER);
        eqMember(NODE, OTHER, IFLBMembers.Status.Left, 0);
        expectUnauthorized(PAYEE);
        vm.prank(PAYEE);
        run.setPayee(NODE, PAYEE);
    }

    function test_setPayee__anybodyElseOrZero__isRefused() public {
        expectNotMember(NODE);
        vm.prank(NODE);
        run.setPayee(NODE, NODE);
        vm.prank(NODE);
        run.join(PAYEE, none());
        address[4] memory others = [NODE, OWNER, AGGREGATOR, OTHER];
        for (uint256 i = 0; i < others.length; ++i) {
            expectUnauthorized(others[i]);
            vm.prank(others[i]);
            run.setPayee(NODE, others[i]);
        }
        expectZero("payee");
        vm.prank(PAYEE);
        run.setPayee(NODE, address(0));
    }

    function test_revokeDataset__zeroOrNoMember__isRefused() public {
        expectNotMember(NODE);
        vm.prank(NODE);
        run.revokeDataset(NODE, ROOT);
        join(NODE);
        expectZero("root");
        vm.prank(NODE);
        run.revokeDataset(NODE, 0);
    }

    // --------------------------------------------------------------- admission

    function test_join__admission__needsAnInvite() public {
        byAdmission();
        expectNotInvited();
        join(NODE);
        joinWith(ADMITTER_KEY, 0, time);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 0);
    }

    function test_join__inviteOfAnotherKindOrSigner__isNone() public {
        byAdmission();
        expectNotInvited();
        joinWith(NODE_KEY, 0, time); // by itself
        expectNotInvited();
        joinWith(ADMITTER_KEY, 1, time); // for after a removal
        IFLBMembers.Invite memory other = invite(ADMITTER_KEY, OTHER, 0, time);
        expectNotInvited();
        vm.prank(NODE);
        run.join(address(0), other);
        IFLBMembers.Invite memory longer = invite(ADMITTER_KEY, NODE, 0, time);
        longer.deadline += 1;
        expectNotInvited();
        vm.prank(NODE);
        run.join(address(0), longer);
    }

    function test_join__inviteAfterItsDeadline__hasExpired() public {
        byAdmission();
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBExpired.selector, time - 1));
        joinWith(ADMITTER_KEY, 0, time - 1);
    }

    /// @dev Leaving does not use an invite up; removal does, whoever signs the next one.
    function test_remove__admission__voidsInvites() public {
        byAdmission();
        joinWith(ADMITTER_KEY, 0, time);
        vm.prank(NODE);
        run.leave(NODE);
        joinWith(ADMITTER_KEY, 0, time);
        vm.prank(ADMITTER);
        run.remove(NODE);
        expectNotInvited();
        joinWith(ADMITTER_KEY, 0, time);
        joinWith(ADMITTER_KEY, 1, time);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 0);
    }

    /// @dev The count of removals ends at its largest number: removal still works, and no invite counts any more.
    function test_remove__lastNumber__barsTheNode() public {
        byAdmission();
        joinWith(ADMITTER_KEY, 0, time);
        bytes32 slot = keccak256(abi.encode(NODE, MEMBERS_SLOT));
        vm.store(address(run), slot, vm.load(address(run), slot) | bytes32(uint256(65_534) << 224));
        for (uint256 i = 0; i < 2; ++i) {
            vm.prank(OWNER);
            run.remove(NODE);
            (,,,, uint16 removals) = run.member(NODE);
            eq(removals, 65_535);
            expectNotInvited();
            joinWith(ADMITTER_KEY, 65_535, time);
            vm.store(address(run), slot, vm.load(address(run), slot) ^ bytes32(uint256(3) << 240)); // active again
        }
    }

    function test_setAdmitter__owner__voidsInvitesOfTheOldOne() public {
        byAdmission();
        vm.expectEmit(address(run));
        emit IFLBMembers.AdmitterSet(addressOf(OTHER_KEY));
        vm.prank(OWNER);
        run.setAdmitter(addressOf(OTHER_KEY));
        eq(run.admitter(), addressOf(OTHER_KEY));
        expectNotInvited();
        joinWith(ADMITTER_KEY, 0, time);
        joinWith(OTHER_KEY, 0, time);
        expectUnauthorized(ADMITTER);
        vm.prank(ADMITTER);
        run.remove(NODE);
    }

    function test_setAdmitter__openRunZeroOrNotOwner__isRefused() public {
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBMembershipOpen.selector));
        vm.prank(OWNER);
        run.setAdmitter(ADMITTER);
        byAdmission();
        expectZero("admitter");
        vm.prank(OWNER);
        run.setAdmitter(address(0));
        expectUnauthorized(ADMITTER);
        vm.prank(ADMITTER);
        run.setAdmitter(OTHER);
    }

    // ---------------------------------------------------------------- helpers

    function byAdmission() private {
        run = FLBRun(factory.createRun(admission(address(0), 0, 0)));
    }

    function joinWith(uint256 key, uint16 removals, uint40 deadline) private {
        IFLBMembers.Invite memory word = invite(key, NODE, removals, deadline);
        vm.prank(NODE);
        run.join(address(0), word);
    }

    function rotate(address by, address key) private {
        vm.prank(by);
        run.rotateKey(NODE, key);
    }

    function expectNotInvited() private {
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBNotInvited.selector, NODE));
    }

    function expectNotMember(address node) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBNotMember.selector, node));
    }
}
