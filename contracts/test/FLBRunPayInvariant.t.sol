// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {FLBRun} from "../FLBRun.sol";
import {IFLBMembers} from "../interfaces/IFLBMembers.sol";
import {IFLBRewards} from "../interfaces/IFLBRewards.sol";
import {IFLBRounds} from "../interfaces/IFLBRounds.sol";
import {IFLBRun} from "../interfaces/IFLBRun.sol";
import {FLBToken} from "../token/FLBToken.sol";
import {Base} from "./Base.t.sol";
import {Trees} from "./Trees.sol";

/// @dev Members, rounds, payouts and claims in any order, and what a careful reader would have noted.
contract PayHandler is Base {
    uint256 public constant NODES = 4;
    uint256 private constant FIRST_KEY = 0x5000;
    uint32 private constant DELAY = 30;

    FLBToken public token;
    uint256 public funded;
    /// @dev What the contract may never do; each is named where it is set.
    string public broken;

    /// @dev By round: what was sealed, the grants of its tree, and whether it pays.
    mapping(uint32 round => IFLBRounds.Sealed) private _records;
    mapping(uint32 round => uint256[NODES]) private _grants;
    mapping(uint32 round => bool) public cancelled;
    uint256[NODES] private _earned;
    uint32 public active;

    mapping(address node => address) public payees;
    mapping(address node => uint256) public highest;

    constructor() {
        arrange();
        token = new FLBToken();
        IFLBRun.Settings memory s = admission(address(token), 1, DELAY);
        s.steps = 10_000;
        run = FLBRun(factory.createRun(s));
        start();
    }

    function setUp() public override {}

    function theRun() external view returns (FLBRun) {
        return run;
    }

    function node(uint256 index) public pure returns (address) {
        return addressOf(FIRST_KEY + index % NODES);
    }

    // ------------------------------------------------------------------- acts

    function fund(uint64 amount) external {
        token.mint(address(run), amount);
        funded += amount;
    }

    /// @dev By call or by message; the payee that is asked for counts the first time only.
    function enter(uint256 who, address payee, bool byMessage) external {
        nextBlock();
        (address old, uint32 seq,,, uint16 removals) = run.member(node(who));
        IFLBMembers.Invite memory word = invite(ADMITTER_KEY, node(who), removals, time);
        if (byMessage) {
            IFLBMembers.Message[] memory batch = new IFLBMembers.Message[](1);
            batch[0] = message(IFLBMembers.Kind.Join, seq + 1, bytes32(uint256(uint160(payee))), 0);
            batch[0].node = node(who);
            signed(FIRST_KEY + who % NODES, batch[0]);
            batch[0].invite = word;
            run.relay(batch);
        } else {
            attempt(node(who), abi.encodeCall(IFLBMembers.join, (payee, word)));
        }
        (address now_,, IFLBMembers.Status status,,) = run.member(node(who));
        if (old == address(0) && status == IFLBMembers.Status.Active) {
            payees[node(who)] = payee == address(0) ? node(who) : payee;
        }
        if (now_ != payees[node(who)]) broken = "payee";
    }

    /// @dev Leaving is never refused to a member, in any phase.
    function exit(uint256 who) external {
        nextBlock();
        (,, IFLBMembers.Status status,,) = run.member(node(who));
        bool done = attempt(node(who), abi.encodeCall(IFLBMembers.leave, (node(who))));
        if (done != (status == IFLBMembers.Status.Active)) broken = "exit";
    }

    function expel(uint256 who) external {
        nextBlock();
        attempt(ADMITTER, abi.encodeCall(IFLBMembers.remove, (node(who))));
    }

    /// @dev By the payee or by somebody else, who never changes it.
    function movePayee(uint256 who, address by, address to) external {
        nextBlock();
        address before = payees[node(who)];
        if (uint160(by) % 2 == 0) by = before;
        if (attempt(by, abi.encodeCall(IFLBMembers.setPayee, (node(who), to)))) {
            if (by != before) broken = "payee moved by another";
            payees[node(who)] = to;
        }
        (address now_,,,,) = run.member(node(who));
        if (now_ != payees[node(who)]) broken = "payee";
    }

    /// @dev Seals a round in which some earned something.
    function seal(uint8[NODES] calldata more) external {
        (uint32 open,,, bool finished) = run.head();
        if (finished) return;
        nextBlock();
        for (uint256 i = 0; i < NODES; ++i) {
            _earned[i] += more[i];
            _grants[open][i] = _earned[i];
        }
        IFLBRounds.Roll memory r = statement(open);
        r.payoutRoot = tree(open)[0];
        IFLBRounds.Sealed memory record = recordOf(open, run.recordHash(open - 1), r);
        if (!attempt(AGGREGATOR, abi.encodeCall(IFLBRounds.roll, (open, r)))) broken = "roll";
        else _records[open] = record;
    }

    function lapse() external {
        (uint32 open,, uint40 deadline, bool finished) = run.head();
        if (finished) return;
        nextBlock();
        warpTo(deadline + GRACE_SECONDS);
        attempt(OTHER, abi.encodeCall(IFLBRounds.expire, (open)));
    }

    function end(uint8 chance) external {
        if (chance < 4) attempt(OWNER, abi.encodeCall(IFLBRounds.finish, ()));
    }

    /// @dev Only a sealed round, not cancelled, newer than the active one, and not too soon, is activated. A void round
    /// is tried with the record of another.
    function activate(uint32 back, uint16 passed) external {
        nextBlock();
        warpTo(time + passed % (2 * DELAY));
        (uint32 open,,,) = run.head();
        uint32 round = open > back % 8 ? open - back % 8 : 1;
        IFLBRounds.Sealed memory record = _records[round];
        bool sealed_ = record.round != 0;
        record.round = round;
        bool due = sealed_ && time >= record.deadline - ROUND_SECONDS + DELAY;
        bool done = attempt(OTHER, abi.encodeCall(IFLBRewards.activatePayout, (record)));
        if (done && !(due && !cancelled[round] && round > active)) broken = "activation";
        if (done) active = round;
    }

    function cancel(uint32 back) external {
        (uint32 open,,,) = run.head();
        if (back % 8 > open) return;
        uint32 round = open - back % 8;
        if (attempt(OWNER, abi.encodeCall(IFLBRewards.cancelPayout, (round)))) {
            if (round <= active || round >= open) broken = "cancelled too late";
            cancelled[round] = true;
        }
    }

    /// @dev A due claim that the funds cover is never refused, in any phase and whoever brings it.
    function claim(uint256 who, address by) external {
        if (active == 0) return;
        who %= NODES;
        uint256 grant = _grants[active][who];
        uint256 paid = run.claimed(node(who));
        address payee = payees[node(who)];
        bool due = grant > paid && payee != address(0) && token.balanceOf(address(run)) >= grant - paid;
        uint256 before = token.balanceOf(payee);
        bytes32[] memory nodes = tree(active);
        bytes32[] memory proof = Trees.payoutProof(nodes, Trees.payoutLeaf(node(who), grant));
        bool done = attempt(by, abi.encodeCall(IFLBRewards.claim, (node(who), grant, proof)));
        if (done != due) broken = "claim";
        if (!done) return;
        if (grant > highest[node(who)]) highest[node(who)] = grant;
        if (payee != address(run) && token.balanceOf(payee) != before + grant - paid) broken = "paid somebody else";
    }

    // ---------------------------------------------------------------- private

    function tree(uint32 round) private view returns (bytes32[] memory) {
        bytes32[] memory leaves = new bytes32[](NODES);
        for (uint256 i = 0; i < NODES; ++i) leaves[i] = Trees.payoutLeaf(node(i), _grants[round][i]);
        return Trees.payouts(leaves);
    }

    function attempt(address caller, bytes memory data) private returns (bool done) {
        vm.prank(caller);
        (done,) = address(run).call(data);
    }
}

/// @dev Money: never more than was granted or funded, never for a void or cancelled round, never to another payee.
contract FLBRunPayInvariantTest is Base {
    PayHandler private _handler;

    function setUp() public override {
        _handler = new PayHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(_handler);
    }

    function invariant_everyAct__isAllowedExactlyWhenItShould() public view {
        eq(keccak256(bytes(_handler.broken())), keccak256(""));
    }

    function invariant_claimed__isAtMostGrantedAndFunded() public view {
        uint256 sum = 0;
        for (uint256 i = 0; i < _handler.NODES(); ++i) {
            uint256 paid = _handler.theRun().claimed(_handler.node(i));
            eq(paid, _handler.highest(_handler.node(i)));
            sum += paid;
        }
        eq(sum > _handler.funded() ? 1 : 0, 0);
        uint256 left = _handler.token().balanceOf(address(_handler.theRun()));
        // a payee may be the run itself
        eq(left < _handler.funded() - sum ? 1 : 0, 0);
    }

    function invariant_payout__isTheActivatedRound() public view {
        (uint32 round,) = _handler.theRun().payout();
        eq(round, _handler.active());
        eq(_handler.cancelled(round) ? 1 : 0, 0);
    }
}
