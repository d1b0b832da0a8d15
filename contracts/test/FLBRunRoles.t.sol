// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable} from "@openzeppelin/contracts/access/Ownable.sol";
import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";
import {Initializable} from "@openzeppelin/contracts/proxy/utils/Initializable.sol";

import {IFLBFactory} from "../interfaces/IFLBFactory.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {Base} from "./Base.t.sol";

/// @dev Who holds a role from the making of a run on, and when it passes to another.
contract FLBRunRolesTest is Base {
    // ----------------------------------------------------------------- making

    /// @dev Every event of the transaction, in order; the two certificates differ, so that none stands for the other.
    function test_createRun__allSettings__announcesThem() public {
        IFLBRun.Settings memory s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.certDigest = keccak256("now");
        s.nextCertDigest = keccak256("next");
        s.admitter = ADMITTER;
        // the factory made the implementation with its nonce 1 and the run of the fixture with 2
        address made = address(uint160(uint256(keccak256(abi.encodePacked(hex"d694", factory, hex"03")))));

        vm.expectEmit(address(factory));
        emit IFLBFactory.RunCreated(made, OWNER, s.spec);
        vm.expectEmit(made);
        emit Ownable.OwnershipTransferred(address(0), OWNER);
        vm.expectEmit(made);
        emit IFLBRounds.AggregatorSet(AGGREGATOR, 1);
        vm.expectEmit(made);
        emit IFLBRounds.EndpointSet("127.0.0.1:50051", keccak256("now"), keccak256("next"));
        vm.expectEmit(made);
        emit IFLBMembers.AdmitterSet(ADMITTER);
        vm.expectEmit(made);
        emit Initializable.Initialized(1);
        eq(factory.createRun(s), made);
    }

    function test_start__runThatHasEnded__saysFinished() public {
        start();
        finish();
        roll(1);
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBFinished.selector));
        vm.prank(OWNER);
        run.start();
    }

    // -------------------------------------------------------------- ownership

    function test_transferOwnership__owner__waitsForTheNewOne() public {
        vm.expectEmit(address(run));
        emit Ownable2Step.OwnershipTransferStarted(OWNER, OTHER);
        transferTo(OTHER);
        eq(run.owner(), OWNER);
        eq(run.pendingOwner(), OTHER);

        vm.expectEmit(address(run));
        emit Ownable.OwnershipTransferred(OWNER, OTHER);
        vm.prank(OTHER);
        run.acceptOwnership();
        eq(run.owner(), OTHER);
        eq(run.pendingOwner(), address(0));
    }

    function test_transferOwnership__notOwner__isRefused() public {
        expectUnauthorized(AGGREGATOR);
        vm.prank(AGGREGATOR);
        run.transferOwnership(AGGREGATOR);
    }

    /// @dev The one error of a role that is OpenZeppelin's own: a pending owner is no role of the run.
    function test_acceptOwnership__notPending__isRefused() public {
        expectNotPending(OTHER);
        transferTo(OTHER);
        expectNotPending(OWNER);
        transferTo(address(0)); // calls the transfer off
        expectNotPending(OTHER);
        eq(run.owner(), OWNER);
    }

    function test_acceptOwnership__newOwner__takesEveryRightAlong() public {
        join(NODE);
        transferTo(OTHER);
        vm.prank(OTHER);
        run.acceptOwnership();
        bytes[5] memory calls = [
            abi.encodeCall(IFLBRounds.start, ()),
            abi.encodeCall(IFLBRounds.setAggregator, (PAYEE)),
            abi.encodeCall(IFLBRounds.setEndpoint, ("", 0, 0)),
            abi.encodeCall(IFLBMembers.remove, (NODE)),
            abi.encodeCall(IFLBRounds.finish, ())
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            vm.prank(OWNER);
            (bool done, bytes memory answer) = address(run).call(calls[i]);
            eq(done ? 1 : 0, 0);
            eq(keccak256(answer), keccak256(abi.encodeWithSelector(IFLBRounds.FLBUnauthorized.selector, OWNER)));
            vm.prank(OTHER);
            (done,) = address(run).call(calls[i]);
            eq(done ? 1 : 0, 1);
        }
    }

    function test_renounceOwnership__openRun__goesOnWithoutOwner() public {
        expectUnauthorized(OTHER);
        vm.prank(OTHER);
        run.renounceOwnership();
        start();
        vm.prank(OWNER);
        run.renounceOwnership();
        eq(run.owner(), address(0));
        expectUnauthorized(OWNER);
        finish();
        roll(1);
        expire(2);
        eqHead(3, 1, time + ROUND_SECONDS, false);
    }

    // --------------------------------------------------------------- endpoint

    /// @dev Who may roll may say where it listens: the right passes with the opening, not with the announcement.
    function test_setEndpoint__handOver__passesWithTheOpening() public {
        start();
        vm.prank(OWNER);
        run.setAggregator(OTHER);
        expectUnauthorized(OTHER);
        endpoint(OTHER);
        endpoint(AGGREGATOR);

        roll(1);
        expectUnauthorized(AGGREGATOR);
        endpoint(AGGREGATOR);
        vm.expectEmit(address(run));
        emit IFLBRounds.EndpointSet("example.org:443", keccak256("now"), keccak256("next"));
        endpoint(OTHER);
    }

    /// @dev The aggregator serves the last adapter until it is stopped, so it may still move.
    function test_setEndpoint__finishedRun__isOpen() public {
        finish();
        vm.expectEmit(address(run));
        emit IFLBRounds.EndpointSet("example.org:443", keccak256("now"), keccak256("next"));
        endpoint(AGGREGATOR);
    }

    // ---------------------------------------------------------------- helpers

    function transferTo(address owner) private {
        vm.prank(OWNER);
        run.transferOwnership(owner);
    }

    function expectNotPending(address caller) private {
        vm.expectRevert(abi.encodeWithSelector(Ownable.OwnableUnauthorizedAccount.selector, caller));
        vm.prank(caller);
        run.acceptOwnership();
    }

    function endpoint(address caller) private {
        vm.prank(caller);
        run.setEndpoint("example.org:443", keccak256("now"), keccak256("next"));
    }
}
