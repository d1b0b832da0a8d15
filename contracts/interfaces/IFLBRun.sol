// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The registry of one federated run
/// @notice One immutable contract a run. It says who is a member, which datasets were committed, which round is
/// open, and what each sealed round left behind. Readers work from its events; storage holds only what the
/// contract itself must check.
/// @dev Counting: a round runs from its opening (`RunStarted`, `RoundRolled` or `RoundVoided`) to its seal or void
/// and is counted from 1. A step is a sealed round; a void round is not one.
/// Warning: the seed of an opening can be biased by a block proposer who colludes with a member.
interface IFLBRun {
    // ------------------------------------------------------------------ types

    /// @notice What `initialize` fixes for the life of the run.
    /// @param spec SHA-256 of the run spec (canonical JSON).
    /// @param adapter SHA-256 of adapter 0.
    /// @param steps Number of rounds to seal; at least 1.
    /// @param roundSeconds Intake window of a round, in seconds.
    /// @param graceSeconds Time after the deadline until anyone may `expire` the round, in seconds.
    /// @param owner May finish the run, change the aggregator and the endpoint, and remove members.
    /// @param aggregator May roll rounds and change the endpoint.
    /// @param admitter May remove members; zero where membership is open.
    /// @param uri Where the aggregator listens, for example `127.0.0.1:50051`; may be empty until it is known.
    /// @param certDigest SHA-256 of the certificate that the aggregator presents; zero for plaintext on loopback.
    /// @param nextCertDigest The certificate after it, or zero.
    struct Settings {
        bytes32 spec;
        bytes32 adapter;
        uint32 steps;
        uint32 roundSeconds;
        uint32 graceSeconds;
        address owner;
        address aggregator;
        address admitter;
        string uri;
        bytes32 certDigest;
        bytes32 nextCertDigest;
    }

    /// @notice What the aggregator states about the round that it seals.
    /// @param recordDigest SHA-256 of the record blob.
    /// @param adapterDigest SHA-256 of the adapter that the round made.
    /// @param updatesRoot Root of the tree of admitted updates, leaves in order of node address.
    /// @param scoresRoot Root of the scores, zero where none are computed.
    /// @param payoutRoot Root of cumulative payouts, zero where none are computed.
    /// @param accepted Number of admitted updates.
    /// @param weightSum Sum of their weights.
    struct Roll {
        bytes32 recordDigest;
        bytes32 adapterDigest;
        bytes32 updatesRoot;
        bytes32 scoresRoot;
        bytes32 payoutRoot;
        uint32 accepted;
        uint64 weightSum;
    }

    /// @notice `None` has never joined; `Left` left or was removed and may join again.
    enum Status {
        None,
        Active,
        Left
    }

    // ----------------------------------------------------------------- events

    /// @notice Round 1 is open; `seed` draws its cohort, intake closes at `deadline` (Unix seconds).
    event RunStarted(bytes32 spec, bytes32 adapterDigest, bytes32 seed, uint40 deadline);

    /// @notice `round` is sealed and, unless `RunFinished` follows, the next one is open with `seed` and `deadline`.
    /// `recordHash` chains every field here to the hash of the round before.
    event RoundRolled(
        uint32 indexed round,
        bytes32 recordHash,
        bytes32 recordDigest,
        bytes32 adapterDigest,
        bytes32 updatesRoot,
        bytes32 scoresRoot,
        bytes32 payoutRoot,
        bytes32 seed,
        uint32 accepted,
        uint64 weightSum,
        uint40 deadline
    );

    /// @notice `round` ended without an adapter; the next one is open with `seed` and `deadline`, unless
    /// `RunFinished` follows.
    event RoundVoided(uint32 indexed round, bytes32 recordHash, bytes32 seed, uint40 deadline);

    /// @notice The owner made `round` the last one.
    event RunFinishing(uint32 indexed round);

    /// @notice `round` was the last one; nothing opens any more.
    event RunFinished(uint32 indexed round, bytes32 recordHash);

    /// @notice `node` is a member from the next opening on. `key` signs for it, `payee` is paid for it. `relayed` is
    /// true where somebody else brought the node's signature.
    event NodeJoined(address indexed node, address key, address payee, bool relayed);

    /// @notice `node` is no member from the next opening on, by its own will.
    event NodeLeft(address indexed node);

    /// @notice `node` is no member from the next opening on, by the will of `by`.
    event NodeRemoved(address indexed node, address indexed by);

    /// @notice `node` committed to a dataset of `records` records, from the next opening on. `root` is a Merkle root
    /// over salted record hashes that commits to the node's address. `version` counts the node's datasets from 1.
    event DatasetRegistered(address indexed node, bytes32 indexed root, uint32 version, uint64 records);

    /// @notice Where the aggregator listens and which certificates it presents.
    event EndpointSet(string uri, bytes32 certDigest, bytes32 nextCertDigest);

    /// @notice `aggregator` may roll from `round` on.
    event AggregatorSet(address indexed aggregator, uint32 round);

    // ----------------------------------------------------------------- errors

    /// @notice `caller` lacks the role that the function asks for.
    error FLBUnauthorized(address caller);
    /// @notice The round named is not the open one; `open` is, zero where none is.
    error FLBWrongRound(uint32 round, uint32 open);
    /// @notice `start` was called on a run that has started.
    error FLBAlreadyStarted();
    /// @notice The run has no open round any more.
    error FLBFinished();
    /// @notice The round cannot expire before `earliest` (Unix seconds).
    error FLBTooEarly(uint40 earliest);
    /// @notice `node` is a member already.
    error FLBAlreadyMember(address node);
    /// @notice `node` is not a member.
    error FLBNotMember(address node);
    /// @notice The parameter named may not be zero.
    error FLBZero(string parameter);

    // -------------------------------------------------------------- life of a run

    /// @notice Fixes the run. Once, and never on the implementation itself.
    function initialize(Settings calldata settings) external;

    /// @notice Opens round 1. Owner only.
    function start() external;

    /// @notice Seals round `round` and opens the next, or ends the run after the last step. Aggregator only. Valid
    /// also after the deadline, until `expire` is mined.
    function roll(uint32 round, Roll calldata sealed_) external;

    /// @notice Voids round `round` once its grace is over. Anyone.
    function expire(uint32 round) external;

    /// @notice Makes the open round the last one; before `start`, ends the run at once. Owner only.
    function finish() external;

    /// @notice Hands the rounds from the next opening on to `aggregator`. Owner only.
    function setAggregator(address aggregator) external;

    /// @notice Publishes where the aggregator listens. Owner or aggregator.
    function setEndpoint(string calldata uri, bytes32 certDigest, bytes32 nextCertDigest) external;

    // -------------------------------------------------------------- membership

    /// @notice Joins as a node named by the caller's address for good; `payee` zero means the caller itself.
    function join(address payee) external;

    /// @notice Leaves. Members only.
    function leave() external;

    /// @notice Removes `node`. Owner or admitter.
    function remove(address node) external;

    /// @notice Commits to a dataset of `records` records. Members only. A zero root or no records is refused.
    function registerDataset(bytes32 root, uint64 records) external;

    // -------------------------------------------------------------- views

    /// @notice The open round (zero before the start and after the end), the number of sealed rounds, the deadline
    /// of the open round and whether the run has ended.
    function head() external view returns (uint32 round, uint32 sealed_, uint40 deadline, bool finished);

    /// @notice The hash of round `round`, while the ring of 64 still holds it; zero otherwise.
    function recordHash(uint32 round) external view returns (bytes32);

    /// @notice The member slot of `node`: payee, sequence number of its signed messages, status, and the number of
    /// datasets that it registered.
    function member(address node) external view returns (address payee, uint32 seq, Status status, uint32 datasets);

    /// @notice Who may roll the open round.
    function aggregator() external view returns (address);

    /// @notice Who may remove members besides the owner; zero where membership is open.
    function admitter() external view returns (address);

    /// @notice SHA-256 of the run spec.
    function spec() external view returns (bytes32);

    /// @notice SHA-256 of adapter 0.
    function adapter() external view returns (bytes32);

    /// @notice Number of rounds to seal.
    function steps() external view returns (uint32);

    /// @notice Length of a round's intake and of the grace after it, in seconds.
    function windows() external view returns (uint32 roundSeconds, uint32 graceSeconds);
}
