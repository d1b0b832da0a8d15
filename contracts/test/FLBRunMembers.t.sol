// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {Base} from "./Base.t.sol";

/// @dev Members and their datasets.
contract FLBRunMembersTest is Base {
    // ------------------------------------------------------------------- join

    function test_join__newNode__isActive() public {
        vm.expectEmit(address(run));
        emit IFLBRun.NodeJoined(NODE, NODE, PAYEE, false);
        vm.prank(NODE);
        run.join(PAYEE);
        eqMember(NODE, PAYEE, IFLBRun.Status.Active, 0);
        eqMember(OTHER, address(0), IFLBRun.Status.None, 0);
    }

    function test_join__noPayee__paysTheNode() public {
        vm.expectEmit(address(run));
        emit IFLBRun.NodeJoined(NODE, NODE, NODE, false);
        join(NODE);
        eqMember(NODE, NODE, IFLBRun.Status.Active, 0);
    }

    function test_join__member__isRefused() public {
        join(NODE);
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBAlreadyMember.selector, NODE));
        join(NODE);
    }

    function test_join__afterLeaving__keepsTheDatasetCount() public {
        join(NODE);
        register(keccak256("data"), 10);
        leave(NODE);
        vm.prank(NODE);
        run.join(PAYEE);
        eqMember(NODE, PAYEE, IFLBRun.Status.Active, 1);
    }

    function test_join__afterRemoval__isOpen() public {
        join(NODE);
        remove(OWNER);
        join(NODE);
        eqMember(NODE, NODE, IFLBRun.Status.Active, 0);
    }

    function test_join__finishedRun__isRefused() public {
        finish();
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBFinished.selector));
        join(NODE);
    }

    // -------------------------------------------------------- leave and remove

    function test_leave__member__hasLeft() public {
        join(NODE);
        vm.expectEmit(address(run));
        emit IFLBRun.NodeLeft(NODE);
        leave(NODE);
        eqMember(NODE, NODE, IFLBRun.Status.Left, 0);
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
        eqMember(NODE, NODE, IFLBRun.Status.Left, 0);
    }

    function test_remove__ownerOrAdmitter__endsMembership() public {
        for (uint256 i = 0; i < 2; ++i) {
            address by = i == 0 ? OWNER : ADMITTER;
            join(NODE);
            vm.expectEmit(address(run));
            emit IFLBRun.NodeRemoved(NODE, by);
            remove(by);
            eqMember(NODE, NODE, IFLBRun.Status.Left, 0);
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
        emit IFLBRun.DatasetRegistered(NODE, keccak256("first"), 1, 10);
        register(keccak256("first"), 10);
        vm.expectEmit(address(run));
        emit IFLBRun.DatasetRegistered(NODE, keccak256("second"), 2, type(uint64).max);
        register(keccak256("second"), type(uint64).max);
        eqMember(NODE, NODE, IFLBRun.Status.Active, 2);
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
        run.leave();
    }

    function remove(address by) private {
        vm.prank(by);
        run.remove(NODE);
    }

    function register(bytes32 root, uint64 records) private {
        vm.prank(NODE);
        run.registerDataset(root, records);
    }

    function expectNotMember(address node) private {
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBNotMember.selector, node));
    }
}
