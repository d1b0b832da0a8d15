// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The members of a federated run
/// @notice Who is a member, which key signs for it, who is paid for it, and which datasets it committed to. A node is
/// named by one address for good. Its key is that address until `rotateKey`; its payee changes by the payee's own
/// hand alone.
/// @dev Every call of a node can also be signed (EIP-712, domain `FLBRun`, version `1`, chain id, this run) and brought
/// by anybody through `relay`. The types, all signed by the node's present key but where another signer is named:
///     Join(address node,address payee,uint32 seq,uint40 deadline)
///     Leave(address node,uint32 seq,uint40 deadline)
///     RotateKey(address node,address key,uint32 seq,uint40 deadline)      signed by the present key or the payee
///     RegisterDataset(address node,bytes32 root,uint64 records,uint32 seq,uint40 deadline)
///     RevokeDataset(address node,bytes32 root,uint32 seq,uint40 deadline)
///     Invite(address node,uint16 removals,uint40 deadline)                signed by the admitter
/// `seq` must be above that of the node's last message, so that each is good once and a newer one voids the older. A
/// direct call of the node moves it by one, and so voids what was signed before and not brought. A
/// message or invite is good up to and including its `deadline`. Signatures are compact (EIP-2098), low `s` only.
interface IFLBMembers {
    // ------------------------------------------------------------------ types

    /// @notice `None` has never joined; `Left` left or was removed and may join again.
    enum Status {
        None,
        Active,
        Left
    }

    /// @notice What a message asks for.
    enum Kind {
        Join,
        Leave,
        RotateKey,
        RegisterDataset,
        RevokeDataset
    }

    /// @notice The admitter's word that a node may join, until `deadline` and until the node is removed again. All
    /// zero where membership is open.
    /// @param deadline Unix seconds.
    /// @param r First half of the admitter's signature.
    /// @param vs Second half, with the parity in its top bit.
    struct Invite {
        uint40 deadline;
        bytes32 r;
        bytes32 vs;
    }

    /// @notice A signed message of a node.
    /// @param kind What it asks for.
    /// @param node The node.
    /// @param seq Above that of the node's last message.
    /// @param deadline Unix seconds.
    /// @param subject For Join the payee and for RotateKey the key, in the low 20 bytes; for datasets the root; for
    /// Leave zero.
    /// @param records Number of records for RegisterDataset, zero otherwise.
    /// @param r First half of the signature.
    /// @param vs Second half, with the parity in its top bit.
    /// @param invite For Join where membership is by admission, all zero otherwise.
    struct Message {
        Kind kind;
        address node;
        uint32 seq;
        uint40 deadline;
        bytes32 subject;
        uint64 records;
        bytes32 r;
        bytes32 vs;
        Invite invite;
    }

    // ----------------------------------------------------------------- events

    /// @notice `node` is a member from the next opening on. `key` signs for it, `payee` is paid for it. `relayed` is
    /// true where somebody else brought the node's signature.
    event NodeJoined(address indexed node, address key, address payee, bool relayed);

    /// @notice `node` is no member from the next opening on, by its own will.
    event NodeLeft(address indexed node);

    /// @notice `node` is no member from the next opening on, by the will of `by`. Every invite that it holds is void.
    event NodeRemoved(address indexed node, address indexed by);

    /// @notice `key` signs for `node` from the next opening on. Also for a node that has left.
    event KeyRotated(address indexed node, address key);

    /// @notice Claims of `node` are paid to `payee` from now on. Also for a node that has left.
    event PayeeSet(address indexed node, address payee);

    /// @notice `node` committed to a dataset of `records` records, from the next opening on. `root` is a Merkle root
    /// over salted record hashes that commits to the node's address. `version` counts the node's datasets from 1.
    event DatasetRegistered(address indexed node, bytes32 indexed root, uint32 version, uint64 records);

    /// @notice `node` does not train on the dataset of `root` any more, from the next opening on. The contract keeps
    /// no roots: a revocation of a root that the node never registered means nothing.
    event DatasetRevoked(address indexed node, bytes32 indexed root);

    /// @notice `admitter` signs invites and may remove members; invites of the one before are void.
    event AdmitterSet(address indexed admitter);

    /// @notice Entry `index` of a `relay` changed nothing. `reason` is the selector of the error that tells why.
    event RelaySkipped(uint256 index, address indexed node, bytes4 reason);

    // ----------------------------------------------------------------- errors

    /// @notice `node` is a member already.
    error FLBAlreadyMember(address node);
    /// @notice `node` is not a member; from `rotateKey` and `setPayee`: it never was one.
    error FLBNotMember(address node);
    /// @notice `node` was a member before and is paid at `payee`, which `setPayee` alone can change.
    error FLBPayeeFixed(address payee);
    /// @notice Membership is by admission, and `node` has no invite of the present admitter that is still good.
    error FLBNotInvited(address node);
    /// @notice The message or invite was good until `deadline` (Unix seconds).
    error FLBExpired(uint40 deadline);
    /// @notice The message has number `seq`, and one with the number `stored` was taken already.
    error FLBReplayed(uint32 seq, uint32 stored);
    /// @notice The message was signed by `signer`, who may not sign it; zero where the signature is none at all.
    error FLBBadSignature(address signer);
    /// @notice Membership of this run is open, and stays so: there is no admitter to replace.
    error FLBMembershipOpen();

    // -------------------------------------------------------------- functions

    /// @notice Joins as a node named by the caller's address for good. `payee` zero means the caller itself the first
    /// time, and the same payee as before later. A node whose key was rotated joins again through `relay`.
    function join(address payee, Invite calldata invite) external;

    /// @notice Ends the membership of `node`. Its key only. Always possible.
    function leave(address node) external;

    /// @notice Ends the membership of `node` and voids its invites. Owner or admitter.
    function remove(address node) external;

    /// @notice Makes `key` sign for `node` from the next opening on. Its present key or its payee, also after leaving.
    function rotateKey(address node, address key) external;

    /// @notice Makes `payee` the one who is paid for `node`. The present payee alone, also after leaving.
    function setPayee(address node, address payee) external;

    /// @notice Commits to a dataset of `records` records. The key of a member. A zero root or no records is refused.
    function registerDataset(address node, bytes32 root, uint64 records) external;

    /// @notice Says that the dataset of `root` is not used any more. The key of a member.
    function revokeDataset(address node, bytes32 root) external;

    /// @notice Carries out signed messages in their order. Anyone. An entry that the run refuses is skipped with
    /// `RelaySkipped` and undoes none of the others; only calldata that is not well-formed reverts.
    function relay(Message[] calldata messages) external;

    /// @notice Replaces the admitter. Owner only, and only where membership is by admission.
    function setAdmitter(address admitter_) external;

    // ------------------------------------------------------------------ views

    /// @notice The member slot of `node`: payee, number of its last message, status, the number of datasets that it
    /// registered, and how often it was removed, which an invite must name.
    function member(address node)
        external
        view
        returns (address payee, uint32 seq, Status status, uint32 datasets, uint16 removals);

    /// @notice Who signs for `node`: the node's own address until `rotateKey`.
    function keyOf(address node) external view returns (address);

    /// @notice Who signs invites and may remove members besides the owner; zero where membership is open.
    function admitter() external view returns (address);
}
