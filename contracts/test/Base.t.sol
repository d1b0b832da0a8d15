// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBFactory} from "../FLBFactory.sol";
import {FLBRun} from "../FLBRun.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";

/// @dev The cheat codes that these tests use.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function prank(address sender) external;
    function warp(uint256 timestamp) external;
    function roll(uint256 number) external;
    function prevrandao(bytes32 random) external;
    function assume(bool condition) external pure;
    function expectRevert(bytes calldata reason) external;
    function expectEmit(address emitter) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function load(address target, bytes32 slot) external view returns (bytes32);
    function store(address target, bytes32 slot, bytes32 value) external;
}

/// @dev A run of three steps made by the factory, a clock, and the record hash written out a second time.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    address internal constant OWNER = address(0xA1);
    address internal constant AGGREGATOR = address(0xA2);
    address internal constant ADMITTER = address(0xA3);
    address internal constant NODE = address(0xB1);
    address internal constant PAYEE = address(0xB2);
    address internal constant OTHER = address(0xC1);

    uint32 internal constant STEPS = 3;
    uint32 internal constant ROUND_SECONDS = 100;
    uint32 internal constant GRACE_SECONDS = 50;
    uint256 internal constant RING = 64;

    /// @dev Places in the storage of a run, behind the two slots of Ownable2Step.
    bytes32 internal constant HEAD_SLOT = bytes32(uint256(2));
    uint256 internal constant MEMBERS_SLOT = 8;

    FLBFactory internal factory;
    FLBRun internal run;

    /// @dev The block as the tests set it: the optimizer may read TIMESTAMP and NUMBER once for a whole function.
    uint256 internal number = 1_000;
    uint40 internal time = 1_800_000_000;
    bytes32 internal random;

    error Different(bytes32 left, bytes32 right);

    function setUp() public virtual {
        arrange();
    }

    // ---------------------------------------------------------------- fixture

    function arrange() internal {
        factory = new FLBFactory();
        nextBlock();
        run = make(STEPS, ROUND_SECONDS, GRACE_SECONDS);
    }

    function settings(uint32 steps, uint32 roundSeconds, uint32 graceSeconds)
        internal
        pure
        returns (IFLBRun.Settings memory)
    {
        return IFLBRun.Settings({
            spec: keccak256("spec"),
            adapter: keccak256("adapter"),
            steps: steps,
            roundSeconds: roundSeconds,
            graceSeconds: graceSeconds,
            owner: OWNER,
            aggregator: AGGREGATOR,
            admitter: ADMITTER,
            uri: "127.0.0.1:50051",
            certDigest: 0,
            nextCertDigest: 0
        });
    }

    function make(uint32 steps, uint32 roundSeconds, uint32 graceSeconds) internal returns (FLBRun) {
        return FLBRun(factory.createRun(settings(steps, roundSeconds, graceSeconds)));
    }

    /// @dev What an aggregator could state about a round.
    function statement(uint256 round) internal pure returns (IFLBRun.Roll memory) {
        return IFLBRun.Roll({
            recordDigest: keccak256(abi.encode("record", round)),
            adapterDigest: keccak256(abi.encode("adapter", round)),
            updatesRoot: keccak256(abi.encode("updates", round)),
            scoresRoot: keccak256(abi.encode("scores", round)),
            payoutRoot: keccak256(abi.encode("payout", round)),
            accepted: 3,
            weightSum: 3_000
        });
    }

    function start() internal {
        nextBlock();
        vm.prank(OWNER);
        run.start();
    }

    function roll(uint32 round) internal {
        nextBlock();
        vm.prank(AGGREGATOR);
        run.roll(round, statement(round));
    }

    function expire(uint32 round) internal {
        (,, uint40 deadline,) = run.head();
        (, uint32 graceSeconds) = run.windows();
        nextBlock();
        warpTo(deadline + graceSeconds);
        run.expire(round);
    }

    function finish() internal {
        vm.prank(OWNER);
        run.finish();
    }

    function join(address node) internal {
        vm.prank(node);
        run.join(address(0));
    }

    // ------------------------------------------------------------------- time

    function nextBlock() internal {
        number += 1;
        time += 12;
        random = keccak256(abi.encode("random", number));
        vm.roll(number);
        vm.warp(time);
        vm.prevrandao(random);
    }

    function warpTo(uint40 time_) internal {
        time = time_;
        vm.warp(time);
    }

    // ----------------------------------------------------------------- hashes

    /// @dev The seed of an opening of `round` in the present block.
    function seedOf(uint32 round) internal view returns (bytes32) {
        return keccak256(abi.encode(random, blockhash(number - 1), address(run), round));
    }

    function rollHash(uint32 round, bytes32 previous, IFLBRun.Roll memory r, bytes32 seed, uint40 deadline)
        internal
        pure
        returns (bytes32)
    {
        bytes32 kind = keccak256(
            "Roll(uint32 round,bytes32 previous,bytes32 recordDigest,bytes32 adapterDigest,bytes32 updatesRoot,"
            "bytes32 scoresRoot,bytes32 payoutRoot,bytes32 seed,uint32 accepted,uint64 weightSum,uint40 deadline)"
        );
        bytes memory stated =
            bytes.concat(r.recordDigest, r.adapterDigest, r.updatesRoot, r.scoresRoot, r.payoutRoot, seed);
        return keccak256(
            bytes.concat(
                kind,
                bytes32(uint256(round)),
                previous,
                stated,
                bytes32(uint256(r.accepted)),
                bytes32(uint256(r.weightSum)),
                bytes32(uint256(deadline))
            )
        );
    }

    function voidHash(uint32 round, bytes32 previous, bytes32 seed, uint40 deadline) internal pure returns (bytes32) {
        bytes32 kind = keccak256("Void(uint32 round,bytes32 previous,bytes32 seed,uint40 deadline)");
        return keccak256(bytes.concat(kind, bytes32(uint256(round)), previous, seed, bytes32(uint256(deadline))));
    }

    // ----------------------------------------------------------------- checks

    function eq(bytes32 left, bytes32 right) internal pure {
        if (left != right) revert Different(left, right);
    }

    function eq(uint256 left, uint256 right) internal pure {
        eq(bytes32(left), bytes32(right));
    }

    function eq(address left, address right) internal pure {
        eq(uint160(left), uint160(right));
    }

    function eqHead(uint32 round, uint32 sealed_, uint40 deadline, bool finished) internal view {
        (uint32 round_, uint32 sealed__, uint40 deadline_, bool finished_) = run.head();
        eq(round_, round);
        eq(sealed__, sealed_);
        eq(deadline_, deadline);
        eq(finished_ ? 1 : 0, finished ? 1 : 0);
    }

    function eqMember(address node, address payee, IFLBRun.Status status, uint32 datasets) internal view {
        (address payee_, uint32 seq_, IFLBRun.Status status_, uint32 datasets_) = run.member(node);
        eq(payee_, payee);
        eq(seq_, 0);
        eq(uint8(status_), uint8(status));
        eq(datasets_, datasets);
    }

    function expectUnauthorized(address caller) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBUnauthorized.selector, caller));
    }

    function expectWrongRound(uint32 round, uint32 open) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBWrongRound.selector, round, open));
    }

    function expectZero(string memory parameter) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRun.FLBZero.selector, parameter));
    }

    function bound(uint256 value, uint256 least, uint256 most) internal pure returns (uint256) {
        return least + value % (most - least + 1);
    }
}
