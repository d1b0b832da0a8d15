// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

/// @title The rounds of a federated run
/// @notice Which round is open, who seals it, and what each sealed round left behind.
/// @dev Counting: a round runs from its opening (`RunStarted`, `RoundRolled` or `RoundVoided`) to its seal or void
/// and is counted from 1. A step is a sealed round; a void round is not one.
/// Warning: the seed of an opening can be biased by a block proposer who colludes with a member.
interface IFLBRounds {
    // ------------------------------------------------------------------ types

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

    /// @notice What the record hash of a sealed round covers, to be shown again to the contract.
    /// @param round The round.
    /// @param previous Record hash of the round before, zero for round 1.
    /// @param recordDigest As in `Roll`.
    /// @param adapterDigest As in `Roll`.
    /// @param updatesRoot As in `Roll`.
    /// @param scoresRoot As in `Roll`.
    /// @param payoutRoot As in `Roll`.
    /// @param seed Seed of the opening that follows, as in `RoundRolled`.
    /// @param accepted As in `Roll`.
    /// @param weightSum As in `Roll`.
    /// @param deadline Deadline of the opening that follows, as in `RoundRolled`.
    struct Sealed {
        uint32 round;
        bytes32 previous;
        bytes32 recordDigest;
        bytes32 adapterDigest;
        bytes32 updatesRoot;
        bytes32 scoresRoot;
        bytes32 payoutRoot;
        bytes32 seed;
        uint32 accepted;
        uint64 weightSum;
        uint40 deadline;
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

    /// @notice Where the aggregator listens and which certificates it presents.
    event EndpointSet(string uri, bytes32 certDigest, bytes32 nextCertDigest);

    /// @notice `aggregator` may roll from `round` on.
    event AggregatorSet(address indexed aggregator, uint32 round);

    // ----------------------------------------------------------------- errors

    /// @notice `caller` lacks the role that the function asks for.
    error FLBUnauthorized(address caller);
    /// @notice The round named is not the open one; `open` is, zero where none is. From `cancelPayout`: the round
    /// named is not sealed yet.
    error FLBWrongRound(uint32 round, uint32 open);
    /// @notice `start` was called on a run that has started.
    error FLBAlreadyStarted();
    /// @notice The run has no open round any more.
    error FLBFinished();
    /// @notice What was asked for is possible from `earliest` on (Unix seconds): the expiry of the round, its seal, or
    /// the activation of its payout.
    error FLBTooEarly(uint40 earliest);
    /// @notice The parameter named may not be zero.
    error FLBZero(string parameter);
    /// @notice A delay of `delay` seconds is more than the `longest` that the run's other settings allow:
    /// minRoundSeconds above roundSeconds, or payoutDelaySeconds above 63 rounds of minRoundSeconds, after which the
    /// ring of record hashes could have dropped the round.
    error FLBDelayTooLong(uint32 delay, uint32 longest);
    /// @notice What was shown is not the record of `round`, or the ring does not hold that round any more.
    error FLBRecordMismatch(uint32 round);

    // -------------------------------------------------------------- functions

    /// @notice Opens round 1. Owner only.
    function start() external;

    /// @notice Seals round `round` and opens the next, or ends the run after the last step. Aggregator only. Valid
    /// from `minRoundSeconds` after the opening on, also after the deadline, until `expire` is mined.
    function roll(uint32 round, Roll calldata sealed_) external;

    /// @notice Voids round `round` once its grace is over. Anyone.
    function expire(uint32 round) external;

    /// @notice Makes the open round the last one; before `start`, ends the run at once. Owner only.
    function finish() external;

    /// @notice Hands the rounds from the next opening on to `aggregator_`. Owner only.
    function setAggregator(address aggregator_) external;

    /// @notice Publishes where the aggregator listens. Owner or aggregator.
    function setEndpoint(string calldata uri, bytes32 certDigest, bytes32 nextCertDigest) external;

    // ------------------------------------------------------------------ views

    /// @notice The open round (zero before the start and after the end), the number of sealed rounds, the deadline
    /// of the open round and whether the run has ended.
    function head() external view returns (uint32 round, uint32 sealed_, uint40 deadline, bool finished);

    /// @notice The hash of round `round`, while the ring of 64 still holds it; zero otherwise.
    function recordHash(uint32 round) external view returns (bytes32);

    /// @notice Whether a sealed round admitted this update: `proof` leads from the leaf at `index` to the updates root
    /// of `record`. Index 0 and `record.accepted` + 1 are the sentinels of no node, so that two neighbours prove an
    /// absence. Reverts with `FLBRecordMismatch` where `record` is not in the ring.
    /// @param record The sealed round.
    /// @param node The node.
    /// @param weight Weight of the update.
    /// @param digest SHA-256 of the update.
    /// @param tensorRoot Root over its tensors.
    /// @param datasetRoot Root of the dataset that it was trained on.
    /// @param index Place of the leaf, counted from the lower sentinel.
    /// @param proof Siblings from the bottom up, exactly as many as the tree of `record.accepted` + 2 leaves is deep.
    function verifyUpdate(
        Sealed calldata record,
        address node,
        uint64 weight,
        bytes32 digest,
        bytes32 tensorRoot,
        bytes32 datasetRoot,
        uint256 index,
        bytes32[] calldata proof
    ) external view returns (bool);

    /// @notice Who may roll the open round.
    function aggregator() external view returns (address);

    /// @notice SHA-256 of the run spec.
    function spec() external view returns (bytes32);

    /// @notice SHA-256 of adapter 0.
    function adapter() external view returns (bytes32);

    /// @notice Number of rounds to seal.
    function steps() external view returns (uint32);

    /// @notice In seconds: a round's intake, the grace after it, the shortest time from an opening to its seal, and
    /// the time from a seal to the activation of its payout.
    function windows()
        external
        view
        returns (uint32 roundSeconds, uint32 graceSeconds, uint32 minRoundSeconds, uint32 payoutDelaySeconds);
}
