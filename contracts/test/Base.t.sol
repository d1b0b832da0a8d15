// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBFactory} from "../FLBFactory.sol";
import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
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
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
    function addr(uint256 key) external pure returns (address);
    function chainId(uint256 id) external;
    function load(address target, bytes32 slot) external view returns (bytes32);
    function store(address target, bytes32 slot, bytes32 value) external;
}

/// @dev A run of three steps made by the factory, a clock, and the record hash written out a second time.
abstract contract Base {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    address internal constant OWNER = address(0xA1);
    address internal constant AGGREGATOR = address(0xA2);
    uint256 internal constant ADMITTER_KEY = 0xA3;
    address internal constant ADMITTER = 0x681ce2F439FDC80e70C1eEA8b8a085DFb976D32A;
    uint256 internal constant NODE_KEY = 0xB1;
    address internal constant NODE = 0xD83d18A2EaE2440e272a53f86e617cd9F33c8D68;
    address internal constant PAYEE = address(0xB2);
    address internal constant OTHER = address(0xC1);

    uint32 internal constant STEPS = 3;
    uint32 internal constant ROUND_SECONDS = 100;
    uint32 internal constant GRACE_SECONDS = 50;
    uint256 internal constant RING = 64;

    /// @dev Places in the storage of a run, behind the two slots of Ownable2Step.
    bytes32 internal constant HEAD_SLOT = bytes32(uint256(2));
    uint256 internal constant MEMBERS_SLOT = 10;

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
            minRoundSeconds: 0,
            owner: OWNER,
            aggregator: AGGREGATOR,
            admitter: address(0),
            token: address(0),
            payoutDelaySeconds: 0,
            uri: "127.0.0.1:50051",
            certDigest: 0,
            nextCertDigest: 0
        });
    }

    function make(uint32 steps, uint32 roundSeconds, uint32 graceSeconds) internal returns (FLBRun) {
        return FLBRun(factory.createRun(settings(steps, roundSeconds, graceSeconds)));
    }

    /// @dev What an aggregator could state about a round.
    function statement(uint256 round) internal pure returns (IFLBRounds.Roll memory) {
        return IFLBRounds.Roll({
            recordDigest: keccak256(abi.encode("record", round)),
            adapterDigest: keccak256(abi.encode("adapter", round)),
            updatesRoot: keccak256(abi.encode("updates", round)),
            scoresRoot: keccak256(abi.encode("scores", round)),
            payoutRoot: keccak256(abi.encode("payout", round)),
            accepted: 3,
            weightSum: 3_000
        });
    }

    /// @dev Membership by admission.
    function admission(address token, uint32 minRoundSeconds, uint32 payoutDelaySeconds)
        internal
        pure
        returns (IFLBRun.Settings memory s)
    {
        s = settings(STEPS, ROUND_SECONDS, GRACE_SECONDS);
        s.admitter = ADMITTER;
        s.token = token;
        s.minRoundSeconds = minRoundSeconds;
        s.payoutDelaySeconds = payoutDelaySeconds;
    }

    function none() internal pure returns (IFLBMembers.Invite memory invite) {}

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
        (, uint32 graceSeconds,,) = run.windows();
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
        run.join(address(0), none());
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

    function rollHash(uint32 round, bytes32 previous, IFLBRounds.Roll memory r, bytes32 seed, uint40 deadline)
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

    /// @dev The record of a round that is rolled in the present block.
    function recordOf(uint32 round, bytes32 previous, IFLBRounds.Roll memory r)
        internal
        view
        returns (IFLBRounds.Sealed memory)
    {
        (uint32 roundSeconds,,,) = run.windows();
        return IFLBRounds.Sealed({
            round: round,
            previous: previous,
            recordDigest: r.recordDigest,
            adapterDigest: r.adapterDigest,
            updatesRoot: r.updatesRoot,
            scoresRoot: r.scoresRoot,
            payoutRoot: r.payoutRoot,
            seed: seedOf(round + 1),
            accepted: r.accepted,
            weightSum: r.weightSum,
            deadline: time + roundSeconds
        });
    }

    function voidHash(uint32 round, bytes32 previous, bytes32 seed, uint40 deadline) internal pure returns (bytes32) {
        bytes32 kind = keccak256("Void(uint32 round,bytes32 previous,bytes32 seed,uint40 deadline)");
        return keccak256(bytes.concat(kind, bytes32(uint256(round)), previous, seed, bytes32(uint256(deadline))));
    }

    // ------------------------------------------------------------- signatures

    function addressOf(uint256 key) internal pure returns (address) {
        return vm.addr(key);
    }

    /// @dev EIP-712 written out a second time.
    function domain() internal view returns (bytes32) {
        bytes32 kind = keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
        return keccak256(
            bytes.concat(
                kind, keccak256("FLBRun"), keccak256("1"), bytes32(block.chainid), bytes32(uint256(uint160(address(run))))
            )
        );
    }

    function compact(uint256 key, bytes32 structHash) internal view returns (bytes32 r, bytes32 vs) {
        uint8 v;
        (v, r, vs) = vm.sign(key, keccak256(bytes.concat(hex"1901", domain(), structHash)));
        if (v == 28) vs |= bytes32(uint256(1) << 255);
    }

    function invite(uint256 key, address node, uint16 removals, uint40 deadline)
        internal
        view
        returns (IFLBMembers.Invite memory word)
    {
        bytes32 kind = keccak256("Invite(address node,uint16 removals,uint40 deadline)");
        word.deadline = deadline;
        (word.r, word.vs) = compact(key, keccak256(abi.encode(kind, node, removals, deadline)));
    }

    /// @dev A message of NODE, not signed yet, good in this block.
    function message(IFLBMembers.Kind kind, uint32 seq, bytes32 subject, uint64 records)
        internal
        view
        returns (IFLBMembers.Message memory m)
    {
        (m.kind, m.node, m.seq, m.deadline, m.subject, m.records) = (kind, NODE, seq, time, subject, records);
    }

    function signed(uint256 key, IFLBMembers.Message memory m) internal view returns (IFLBMembers.Message memory) {
        (m.r, m.vs) = compact(key, structHash(m));
        return m;
    }

    function structHash(IFLBMembers.Message memory m) internal pure returns (bytes32) {
        bytes32 subject = m.subject;
        bytes memory last = bytes.concat(bytes32(uint256(m.seq)), bytes32(uint256(m.deadline)));
        bytes memory named = bytes.concat(bytes32(uint256(uint160(m.node))), subject);
        if (m.kind == IFLBMembers.Kind.Join) {
            return typed("Join(address node,address payee,uint32 seq,uint40 deadline)", named, last);
        }
        if (m.kind == IFLBMembers.Kind.Leave) {
            named = bytes.concat(bytes32(uint256(uint160(m.node))));
            return typed("Leave(address node,uint32 seq,uint40 deadline)", named, last);
        }
        if (m.kind == IFLBMembers.Kind.RotateKey) {
            return typed("RotateKey(address node,address key,uint32 seq,uint40 deadline)", named, last);
        }
        if (m.kind == IFLBMembers.Kind.RevokeDataset) {
            return typed("RevokeDataset(address node,bytes32 root,uint32 seq,uint40 deadline)", named, last);
        }
        named = bytes.concat(named, bytes32(uint256(m.records)));
        return typed("RegisterDataset(address node,bytes32 root,uint64 records,uint32 seq,uint40 deadline)", named, last);
    }

    function typed(string memory kind, bytes memory named, bytes memory last) private pure returns (bytes32) {
        return keccak256(bytes.concat(keccak256(bytes(kind)), named, last));
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

    function eqMember(address node, address payee, IFLBMembers.Status status, uint32 datasets) internal view {
        (address payee_,, IFLBMembers.Status status_, uint32 datasets_,) = run.member(node);
        eq(payee_, payee);
        eq(uint8(status_), uint8(status));
        eq(datasets_, datasets);
    }

    function expectUnauthorized(address caller) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBUnauthorized.selector, caller));
    }

    function expectWrongRound(uint32 round, uint32 open) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBWrongRound.selector, round, open));
    }

    function expectZero(string memory parameter) internal {
        vm.expectRevert(abi.encodeWithSelector(IFLBRounds.FLBZero.selector, parameter));
    }

    function bound(uint256 value, uint256 least, uint256 most) internal pure returns (uint256) {
        return least + value % (most - least + 1);
    }
}
