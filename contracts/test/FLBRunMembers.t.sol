// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {Base} from "./Base.t.sol";

/// @dev Members and their datasets.
contract FLBRunMembersTest is Base {
    // ------------------------------------------------------------------- join

    function test_join__newNode__isActive() public {
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeJoined(NODE, NODE, PAYEE, false);
        vm.prank(NODE);
        run.join(PAYEE, none());
        eqMember(NODE, PAYEE, IFLBMembers.Status.Active, 0);
        eqMember(OTHER, address(0), IFLBMembers.Status.None, 0);
    }

    function test_join__noPayee__paysTheNode() public {
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeJoined(NODE, NODE, NODE, false);
        join(NODE);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 0);
    }

    function test_join__member__isRefused() public {
        join(NODE);
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBAlreadyMember.selector, NODE));
        join(NODE);
    }

    function test_join__afterLeaving__keepsPayeeAndDatasetCount() public {
        vm.prank(NODE);
        run.join(PAYEE, none());
        register(keccak256("data"), 10);
        leave(NODE);
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBPayeeFixed.selector, PAYEE));
        vm.prank(NODE);
        run.join(OTHER, none());
        join(NODE);
        eqMember(NODE, PAYEE, IFLBMembers.Status.Active, 1);
    }

    function test_join__afterRemoval__isOpen() public {
        join(NODE);
        remove(OWNER);
        join(NODE);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 0);
    }

    function test_join__finishedRun__isRefused() public {
        finish();
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        join(NODE);
    }

    // -------------------------------------------------------- leave and remove

    function test_leave__member__hasLeft() public {
        join(NODE);
        vm.expectEmit(address(run));
        emit IFLBMembers.NodeLeft(NODE);
        leave(NODE);
        eqMember(NODE, NODE, IFLBMembers.Status.Left, 0);
    }

    function test_leave__noMember__isRefused() public {
        expectNotMember(NODE);
        leave(NODE);
        join(NODE);
        leave(NODE);
        expectNotMember(NODE);
        leave(NODE);
    }

    function test_leave__finishedRun__isOpen() public {
        join(NODE);
        finish();
        leave(NODE);
        eqMember(NODE, NODE, IFLBMembers.Status.Left, 0);
    }

    function test_remove__ownerOrAdmitter__endsMembership() public {
        run = FLBRun(factory.createRun(admission(address(0), 0, 0)));
        for (uint16 i = 0; i < 2; ++i) {
            address by = i == 0 ? OWNER : ADMITTER;
            IFLBMembers.Invite memory word = invite(ADMITTER_KEY, NODE, i, time);
            vm.prank(NODE);
            run.join(address(0), word);
            vm.expectEmit(address(run));
            emit IFLBMembers.NodeRemoved(NODE, by);
            remove(by);
            eqMember(NODE, NODE, IFLBMembers.Status.Left, 0);
            (,,,, uint16 removals) = run.member(NODE);
            eq(removals, i + 1);
        }
    }

    function test_remove__anybodyElse__isRefused() public {
        join(NODE);
        expectUnauthorized(AGGREGATOR);
        remove(AGGREGATOR);
    }

    function test_remove__noMember__isRefused() public {
        expectNotMember(NODE);
        remove(OWNER);
    }

    // --------------------------------------------------------------- datasets

    function test_registerDataset__member__countsVersions() public {
        join(NODE);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRegistered(NODE, keccak256("first"), 1, 10);
        register(keccak256("first"), 10);
        vm.expectEmit(address(run));
        emit IFLBMembers.DatasetRegistered(NODE, keccak256("second"), 2, type(uint64).max);
        register(keccak256("second"), type(uint64).max);
        eqMember(NODE, NODE, IFLBMembers.Status.Active, 2);
    }

    function test_registerDataset__noMember__isRefused() public {
        expectNotMember(NODE);
        register(keccak256("data"), 10);
        join(NODE);
        leave(NODE);
        expectNotMember(NODE);
        register(keccak256("data"), 10);
    }

    function test_registerDataset__zero__namesIt() public {
        join(NODE);
        expectZero("root");
        register(0, 10);
        expectZero("records");
        register(keccak256("data"), 0);
    }

    // ---------------------------------------------------------------- helpers

    function leave(address node) private {
        vm.prank(node);
        run.leave(node);
    }

    function remove(address by) private {
        vm.prank(by);
        run.remove(NODE);
    }

    function register(bytes32 root, uint64 records) private {
        vm.prank(NODE);
        run.registerDataset(NODE, root, records);
    }

    function expectNotMember(address node) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBMembers.FLBNotMember.selector, node));
    }
}
