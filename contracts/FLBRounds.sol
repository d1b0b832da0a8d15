// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {Ownable2Step} from "@openzeppelin/contracts/access/Ownable2Step.sol";

import {FLBMerkle} from "./FLBMerkle.sol";
import {IFLBRounds} from "./interfaces/IFLBRounds.sol";
import {IFLBRun} from "./interfaces/IFLBRun.sol";

/// @title The rounds of a run: head, ring of record hashes, roles
/// @dev The interface is the manual. Storage is what the contract must check, everything else is in the events.
abstract contract FLBRounds is IFLBRun, Ownable2Step {
    // -------------------------------------------------------------- constants

    /// @dev A record hash is keccak256 over 32-byte words: the type hash below, then its fields in order, each padded
    /// as abi.encode does. The type hash is keccak256 of the type string. `previous` is the record hash of the round
    /// before, zero for round 1; `seed` and `deadline` are those of the opening that follows, computed in the same
    /// way where none follows: seed = keccak256(abi.encode(prevrandao, hash of the block before, run, round + 1)).
    bytes32 private constant ROLL_TYPEHASH = keccak256(
        "Roll(uint32 round,bytes32 previous,bytes32 recordDigest,bytes32 adapterDigest,bytes32 updatesRoot,"
        "bytes32 scoresRoot,bytes32 payoutRoot,bytes32 seed,uint32 accepted,uint64 weightSum,uint40 deadline)"
    );
    bytes32 private constant VOID_TYPEHASH =
        keccak256("Void(uint32 round,bytes32 previous,bytes32 seed,uint40 deadline)");

    /// @dev Record hashes that are kept: after so many rounds every write is an overwrite.
    uint256 private constant RING = 64;

    // ---------------------------------------------------------------- storage

    /// @dev One slot. `round` is zero before the start and one above the last round after the end, so that the ring
    /// stays readable; `voids` of the rounds so far made nothing. A run that has voided as many as the field holds
    /// ends: unattended it would otherwise come to a round that can never expire.
    struct Head {
        uint32 round;
        uint16 voids;
        uint40 deadline;
        address aggregator;
        uint8 flags;
    }

    uint8 private constant STARTED = 1;
    uint8 private constant FINISHING = 2;
    uint8 internal constant FINISHED = 4;
    uint8 private constant HANDOVER = 8;

    Head internal _head;

    /// @dev One slot, fixed at `initialize`: each roll reads it.
    uint32 private _steps;
    uint32 private _roundSeconds;
    uint32 private _graceSeconds;
    uint32 private _minRoundSeconds;
    uint32 internal _payoutDelaySeconds;

    bytes32 private _spec;
    bytes32 private _adapter;

    /// @dev Leads from the next opening on, while the flag HANDOVER is set.
    address private _nextAggregator;

    mapping(uint256 slot => bytes32) private _ring;

    // ----------------------------------------------------------- construction

    /// @dev The part of `initialize` that concerns rounds.
    function _initializeRounds(Settings calldata settings) internal {
        if (settings.spec == 0) revert FLBZero("spec");
        if (settings.adapter == 0) revert FLBZero("adapter");
        if (settings.steps == 0) revert FLBZero("steps");
        if (settings.roundSeconds == 0) revert FLBZero("roundSeconds");
        if (settings.owner == address(0)) revert FLBZero("owner");
        if (settings.aggregator == address(0)) revert FLBZero("aggregator");
        if (settings.minRoundSeconds > settings.roundSeconds) {
            revert FLBDelayTooLong(settings.minRoundSeconds, settings.roundSeconds);
        }
        uint256 held = (RING - 1) * settings.minRoundSeconds;
        if (settings.payoutDelaySeconds > held) revert FLBDelayTooLong(settings.payoutDelaySeconds, uint32(held));

        _spec = settings.spec;
        _adapter = settings.adapter;
        _steps = settings.steps;
        _roundSeconds = settings.roundSeconds;
        _graceSeconds = settings.graceSeconds;
        _minRoundSeconds = settings.minRoundSeconds;
        _payoutDelaySeconds = settings.payoutDelaySeconds;
        _head.aggregator = settings.aggregator;
        _transferOwnership(settings.owner);
        emit AggregatorSet(settings.aggregator, 1);
        emit EndpointSet(settings.uri, settings.certDigest, settings.nextCertDigest);
    }

    // ---------------------------------------------------------- life of a run

    /// @inheritdoc IFLBRounds
    function start() external onlyOwner {
        Head memory head_ = _head;
        if (head_.flags & FINISHED != 0) revert FLBFinished();
        if (head_.flags & STARTED != 0) revert FLBAlreadyStarted();
        head_.flags |= STARTED;
        bytes32 seed = _advance(head_, false);
        _head = head_;
        emit RunStarted(_spec, _adapter, seed, head_.deadline);
    }

    /// @inheritdoc IFLBRounds
    function roll(uint32 round, Roll calldata sealed_) external {
        Head memory head_ = _head;
        if (msg.sender != head_.aggregator) revert FLBUnauthorized(msg.sender);
        _requireOpen(head_, round);
        uint40 earliest = _openedAt(head_.deadline) + _minRoundSeconds;
        if (block.timestamp < earliest) revert FLBTooEarly(earliest);
        if (sealed_.recordDigest == 0) revert FLBZero("recordDigest");
        if (sealed_.adapterDigest == 0) revert FLBZero("adapterDigest");

        bool last = head_.flags & FINISHING != 0 || round - head_.voids == _steps;
        bytes32 seed = _advance(head_, last);
        bytes32 hash = keccak256(
            abi.encode(
                ROLL_TYPEHASH,
                round,
                _ring[(round - 1) % RING],
                sealed_.recordDigest,
                sealed_.adapterDigest,
                sealed_.updatesRoot,
                sealed_.scoresRoot,
                sealed_.payoutRoot,
                seed,
                sealed_.accepted,
                sealed_.weightSum,
                head_.deadline
            )
        );
        _ring[round % RING] = hash;
        _head = head_;
        emit RoundRolled(
            round,
            hash,
            sealed_.recordDigest,
            sealed_.adapterDigest,
            sealed_.updatesRoot,
            sealed_.scoresRoot,
            sealed_.payoutRoot,
            seed,
            sealed_.accepted,
            sealed_.weightSum,
            head_.deadline
        );
        if (last) emit RunFinished(round, hash);
    }

    /// @inheritdoc IFLBRounds
    function expire(uint32 round) external {
        Head memory head_ = _head;
        _requireOpen(head_, round);
        uint40 earliest = head_.deadline + _graceSeconds;
        if (block.timestamp < earliest) revert FLBTooEarly(earliest);

        bool last = ++head_.voids == type(uint16).max || head_.flags & FINISHING != 0;
        bytes32 seed = _advance(head_, last);
        bytes32 hash = keccak256(abi.encode(VOID_TYPEHASH, round, _ring[(round - 1) % RING], seed, head_.deadline));
        _ring[round % RING] = hash;
        _head = head_;
        emit RoundVoided(round, hash, seed, head_.deadline);
        if (last) emit RunFinished(round, hash);
    }

    /// @inheritdoc IFLBRounds
    function finish() external onlyOwner {
        uint8 flags = _head.flags;
        if (flags & FINISHED != 0) revert FLBFinished();
        if (flags & STARTED == 0) {
            _head.flags = flags | FINISHED;
            emit RunFinished(0, 0);
        } else if (flags & FINISHING == 0) {
            _head.flags = flags | FINISHING;
            emit RunFinishing(_head.round);
        }
    }

    /// @inheritdoc IFLBRounds
    function setAggregator(address aggregator_) external onlyOwner {
        if (aggregator_ == address(0)) revert FLBZero("aggregator");
        uint8 flags = _head.flags;
        if (flags & FINISHED != 0) revert FLBFinished();
        if (flags & STARTED == 0) {
            _head.aggregator = aggregator_;
        } else {
            _nextAggregator = aggregator_;
            _head.flags = flags | HANDOVER;
        }
        emit AggregatorSet(aggregator_, _head.round + 1);
    }

    /// @inheritdoc IFLBRounds
    function setEndpoint(string calldata uri, bytes32 certDigest, bytes32 nextCertDigest) external {
        if (msg.sender != owner() && msg.sender != _head.aggregator) revert FLBUnauthorized(msg.sender);
        emit EndpointSet(uri, certDigest, nextCertDigest);
    }

    // ------------------------------------------------------------------ views

    /// @inheritdoc IFLBRounds
    function head() external view returns (uint32 round, uint32 sealed_, uint40 deadline, bool finished) {
        Head memory head_ = _head;
        finished = head_.flags & FINISHED != 0;
        if (head_.round != 0) sealed_ = head_.round - 1 - head_.voids;
        if (!finished) (round, deadline) = (head_.round, head_.deadline);
    }

    /// @inheritdoc IFLBRounds
    function recordHash(uint32 round) public view returns (bytes32) {
        uint256 next = _head.round;
        if (round >= next || next - round > RING) return 0;
        return _ring[round % RING];
    }

    /// @inheritdoc IFLBRounds
    function aggregator() external view returns (address) {
        return _head.aggregator;
    }

    /// @inheritdoc IFLBRounds
    function spec() external view returns (bytes32) {
        return _spec;
    }

    /// @inheritdoc IFLBRounds
    function adapter() external view returns (bytes32) {
        return _adapter;
    }

    /// @inheritdoc IFLBRounds
    function steps() external view returns (uint32) {
        return _steps;
    }

    /// @inheritdoc IFLBRounds
    function windows()
        external
        view
        returns (uint32 roundSeconds, uint32 graceSeconds, uint32 minRoundSeconds, uint32 payoutDelaySeconds)
    {
        return (_roundSeconds, _graceSeconds, _minRoundSeconds, _payoutDelaySeconds);
    }

    /// @inheritdoc IFLBRounds
    function verifyUpdate(
        Sealed calldata record,
        address node,
        uint64 weight,
        bytes32 digest,
        bytes32 tensorRoot,
        bytes32 datasetRoot,
        uint256 index,
        bytes32[] calldata proof
    ) external view returns (bool) {
        _requireRecord(record);
        bytes32 leaf = FLBMerkle.updateLeaf(node, weight, digest, tensorRoot, datasetRoot);
        return FLBMerkle.verify(record.updatesRoot, leaf, index, uint256(record.accepted) + 2, proof);
    }

    // ---------------------------------------------------------------- private

    /// @dev One error for a missing role, whichever it is.
    function _checkOwner() internal view override {
        if (msg.sender != owner()) revert FLBUnauthorized(msg.sender);
    }

    function _requireOpen(Head memory head_, uint32 round) private pure {
        uint32 open = head_.flags & FINISHED != 0 ? 0 : head_.round;
        if (round == 0 || round != open) revert FLBWrongRound(round, open);
    }

    /// @dev Moves the head in memory past the open round, to the next opening or to the end; returns the seed that
    /// names the opening. A pending aggregator waits for an opening, so the end changes none.
    function _advance(Head memory head_, bool last) private view returns (bytes32) {
        head_.round += 1;
        head_.deadline = uint40(block.timestamp) + _roundSeconds;
        if (last) {
            head_.flags |= FINISHED;
        } else if (head_.flags & HANDOVER != 0) {
            head_.flags &= ~HANDOVER;
            head_.aggregator = _nextAggregator;
        }
        return keccak256(abi.encode(block.prevrandao, blockhash(block.number - 1), address(this), head_.round));
    }

    /// @dev When the round whose deadline this is was opened, hence when the one before was sealed.
    function _openedAt(uint40 deadline) internal view returns (uint40) {
        return deadline - _roundSeconds;
    }

    /// @dev A void round has no record of this form: its hash has another type.
    function _requireRecord(Sealed calldata record) internal view {
        bytes32 hash = keccak256(abi.encode(ROLL_TYPEHASH, record));
        if (hash != recordHash(record.round)) revert FLBRecordMismatch(record.round);
    }
}
