// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {LowLevelCall} from "@openzeppelin/contracts/utils/LowLevelCall.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {EIP712} from "@openzeppelin/contracts/utils/cryptography/EIP712.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";

import {FLBRounds} from "./FLBRounds.sol";
import {IFLBMembers} from "./interfaces/IFLBMembers.sol";

/// @title The members of a run, by call and by signed message
/// @dev Each act is one private function that changes a copy of the member slot and returns the encoded error, empty
/// where it is allowed. A direct call reverts with that error, `relay` reports its selector: so both refuse the same.
abstract contract FLBMembers is FLBRounds, EIP712("FLBRun", "1") {
    bytes32 private constant JOIN_TYPEHASH = keccak256("Join(address node,address payee,uint32 seq,uint40 deadline)");
    bytes32 private constant LEAVE_TYPEHASH = keccak256("Leave(address node,uint32 seq,uint40 deadline)");
    bytes32 private constant ROTATE_KEY_TYPEHASH =
        keccak256("RotateKey(address node,address key,uint32 seq,uint40 deadline)");
    bytes32 private constant REGISTER_DATASET_TYPEHASH =
        keccak256("RegisterDataset(address node,bytes32 root,uint64 records,uint32 seq,uint40 deadline)");
    bytes32 private constant REVOKE_DATASET_TYPEHASH =
        keccak256("RevokeDataset(address node,bytes32 root,uint32 seq,uint40 deadline)");
    bytes32 private constant INVITE_TYPEHASH = keccak256("Invite(address node,uint16 removals,uint40 deadline)");

    /// @dev One slot a member. `rotated` spares every other member the read of a key.
    struct Member {
        address payee;
        uint32 seq;
        uint32 datasets;
        uint16 removals;
        Status status;
        bool rotated;
    }

    mapping(address node => Member) internal _members;
    mapping(address node => address) private _keys;
    address private _admitter;

    /// @dev The part of `initialize` that concerns members.
    function _initializeMembers(address admitter_) internal {
        if (admitter_ == address(0)) return;
        _admitter = admitter_;
        emit AdmitterSet(admitter_);
    }

    // ------------------------------------------------------------------ calls

    /// @inheritdoc IFLBMembers
    function join(address payee, Invite calldata invite) external {
        Member memory slot = _own(msg.sender);
        _settle(msg.sender, slot, _join(msg.sender, slot, payee, invite, false));
    }

    /// @inheritdoc IFLBMembers
    function leave(address node) external {
        Member memory slot = _own(node);
        _settle(node, slot, _leave(node, slot));
    }

    /// @inheritdoc IFLBMembers
    function rotateKey(address node, address key) external {
        Member memory slot = _members[node];
        if (msg.sender != _key(node, slot) && msg.sender != slot.payee) revert FLBUnauthorized(msg.sender);
        _settle(node, slot, _rotateKey(node, slot, key));
    }

    /// @inheritdoc IFLBMembers
    function setPayee(address node, address payee) external {
        Member storage slot = _members[node];
        if (slot.status == Status.None) revert FLBNotMember(node);
        if (msg.sender != slot.payee) revert FLBUnauthorized(msg.sender);
        if (payee == address(0)) revert FLBZero("payee");
        slot.payee = payee;
        emit PayeeSet(node, payee);
    }

    /// @inheritdoc IFLBMembers
    function registerDataset(address node, bytes32 root, uint64 records) external {
        Member memory slot = _own(node);
        _settle(node, slot, _registerDataset(node, slot, root, records));
    }

    /// @inheritdoc IFLBMembers
    function revokeDataset(address node, bytes32 root) external {
        Member memory slot = _own(node);
        _settle(node, slot, _revokeDataset(node, slot, root));
    }

    /// @inheritdoc IFLBMembers
    function remove(address node) external {
        if (msg.sender != owner() && msg.sender != _admitter) revert FLBUnauthorized(msg.sender);
        Member storage slot = _members[node];
        if (slot.status != Status.Active) revert FLBNotMember(node);
        slot.status = Status.Left;
        // never blocked: at the end of the count the node cannot be invited any more, see _invited
        if (slot.removals != type(uint16).max) slot.removals += 1;
        emit NodeRemoved(node, msg.sender);
    }

    /// @inheritdoc IFLBMembers
    function setAdmitter(address admitter_) external onlyOwner {
        if (_admitter == address(0)) revert FLBMembershipOpen();
        if (admitter_ == address(0)) revert FLBZero("admitter");
        _admitter = admitter_;
        emit AdmitterSet(admitter_);
    }

    /// @inheritdoc IFLBMembers
    function relay(Message[] calldata messages) external {
        bytes32 domain = _domainSeparatorV4();
        for (uint256 i = 0; i < messages.length; ++i) {
            bytes memory failure = _relayOne(messages[i], domain);
            if (failure.length != 0) emit RelaySkipped(i, messages[i].node, bytes4(failure));
        }
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IFLBMembers
    function member(address node)
        external
        view
        returns (address payee, uint32 seq, Status status, uint32 datasets, uint16 removals)
    {
        Member memory slot = _members[node];
        return (slot.payee, slot.seq, slot.status, slot.datasets, slot.removals);
    }

    /// @inheritdoc IFLBMembers
    function keyOf(address node) external view returns (address) {
        return _key(node, _members[node]);
    }

    /// @inheritdoc IFLBMembers
    function admitter() external view returns (address) {
        return _admitter;
    }

    // --------------------------------------------------------------- messages

    /// @dev Checks one message and carries it out. Nothing is written where it fails.
    function _relayOne(Message calldata message, bytes32 domain) private returns (bytes memory failure) {
        if (block.timestamp > message.deadline) return abi.encodeWithSelector(FLBExpired.selector, message.deadline);
        address node = message.node;
        Member memory slot = _members[node];
        if (message.seq <= slot.seq) return abi.encodeWithSelector(FLBReplayed.selector, message.seq, slot.seq);

        bytes32 digest = MessageHashUtils.toTypedDataHash(domain, _structHash(message));
        (address signer,,) = ECDSA.tryRecover(digest, message.r, message.vs);
        Kind kind = message.kind;
        bool entitled = signer == _key(node, slot) || (kind == Kind.RotateKey && signer == slot.payee);
        // a signature that is none gives zero, which must not stand for node zero
        if (signer == address(0) || !entitled) return abi.encodeWithSelector(FLBBadSignature.selector, signer);

        slot.seq = message.seq;
        if (kind == Kind.Join) failure = _join(node, slot, _address(message.subject), message.invite, true);
        else if (kind == Kind.Leave) failure = _leave(node, slot);
        else if (kind == Kind.RotateKey) failure = _rotateKey(node, slot, _address(message.subject));
        else if (kind == Kind.RegisterDataset) failure = _registerDataset(node, slot, message.subject, message.records);
        else failure = _revokeDataset(node, slot, message.subject);
        if (failure.length == 0) _members[node] = slot;
    }

    function _structHash(Message calldata m) private pure returns (bytes32) {
        if (m.kind == Kind.Join) {
            return keccak256(abi.encode(JOIN_TYPEHASH, m.node, _address(m.subject), m.seq, m.deadline));
        }
        if (m.kind == Kind.Leave) return keccak256(abi.encode(LEAVE_TYPEHASH, m.node, m.seq, m.deadline));
        if (m.kind == Kind.RotateKey) {
            return keccak256(abi.encode(ROTATE_KEY_TYPEHASH, m.node, _address(m.subject), m.seq, m.deadline));
        }
        if (m.kind == Kind.RegisterDataset) {
            return keccak256(
                abi.encode(REGISTER_DATASET_TYPEHASH, m.node, m.subject, m.records, m.seq, m.deadline)
            );
        }
        return keccak256(abi.encode(REVOKE_DATASET_TYPEHASH, m.node, m.subject, m.seq, m.deadline));
    }

    function _address(bytes32 subject) private pure returns (address) {
        return address(uint160(uint256(subject)));
    }

    // ------------------------------------------------------------------- acts

    function _join(address node, Member memory slot, address payee, Invite calldata invite, bool relayed)
        private
        returns (bytes memory failure)
    {
        if (_head.flags & FINISHED != 0) return abi.encodeWithSelector(FLBFinished.selector);
        if (slot.status == Status.Active) return abi.encodeWithSelector(FLBAlreadyMember.selector, node);
        if (slot.status == Status.None) {
            slot.payee = payee == address(0) ? node : payee;
        } else if (payee != address(0) && payee != slot.payee) {
            return abi.encodeWithSelector(FLBPayeeFixed.selector, slot.payee);
        }
        failure = _invited(node, slot.removals, invite);
        if (failure.length != 0) return failure;
        slot.status = Status.Active;
        emit NodeJoined(node, _key(node, slot), slot.payee, relayed);
    }

    function _invited(address node, uint16 removals, Invite calldata invite) private view returns (bytes memory) {
        address admitter_ = _admitter;
        if (admitter_ == address(0)) return "";
        bytes32 digest = _hashTypedDataV4(keccak256(abi.encode(INVITE_TYPEHASH, node, removals, invite.deadline)));
        (address signer,,) = ECDSA.tryRecover(digest, invite.r, invite.vs);
        // the count of removals stays at its end, so that an invite for it could be used again
        if (signer != admitter_ || removals == type(uint16).max) {
            return abi.encodeWithSelector(FLBNotInvited.selector, node);
        }
        if (block.timestamp > invite.deadline) return abi.encodeWithSelector(FLBExpired.selector, invite.deadline);
        return "";
    }

    /// @dev Number of messages, payee, key and dataset count stay for the case that the membership begins again.
    function _leave(address node, Member memory slot) private returns (bytes memory) {
        if (slot.status != Status.Active) return abi.encodeWithSelector(FLBNotMember.selector, node);
        slot.status = Status.Left;
        emit NodeLeft(node);
        return "";
    }

    function _rotateKey(address node, Member memory slot, address key) private returns (bytes memory) {
        if (slot.status == Status.None) return abi.encodeWithSelector(FLBNotMember.selector, node);
        if (key == address(0)) return abi.encodeWithSelector(FLBZero.selector, "key");
        slot.rotated = key != node;
        _keys[node] = key;
        emit KeyRotated(node, key);
        return "";
    }

    function _registerDataset(address node, Member memory slot, bytes32 root, uint64 records)
        private
        returns (bytes memory)
    {
        if (root == 0) return abi.encodeWithSelector(FLBZero.selector, "root");
        if (records == 0) return abi.encodeWithSelector(FLBZero.selector, "records");
        if (slot.status != Status.Active) return abi.encodeWithSelector(FLBNotMember.selector, node);
        slot.datasets += 1;
        emit DatasetRegistered(node, root, slot.datasets, records);
        return "";
    }

    function _revokeDataset(address node, Member memory slot, bytes32 root) private returns (bytes memory) {
        if (root == 0) return abi.encodeWithSelector(FLBZero.selector, "root");
        if (slot.status != Status.Active) return abi.encodeWithSelector(FLBNotMember.selector, node);
        emit DatasetRevoked(node, root);
        return "";
    }

    // ---------------------------------------------------------------- private

    /// @dev The slot of `node`, for its key only.
    function _own(address node) private view returns (Member memory slot) {
        slot = _members[node];
        if (msg.sender != _key(node, slot)) revert FLBUnauthorized(msg.sender);
    }

    function _key(address node, Member memory slot) private view returns (address) {
        return slot.rotated ? _keys[node] : node;
    }

    /// @dev A call counts as a message: whoever was given an older one cannot bring it afterwards.
    function _settle(address node, Member memory slot, bytes memory failure) private {
        if (failure.length != 0) LowLevelCall.bubbleRevert(failure);
        if (slot.seq != type(uint32).max) slot.seq += 1;
        _members[node] = slot;
    }
}
