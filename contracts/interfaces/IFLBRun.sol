// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.28;

import {IFLBMembers} from "./IFLBMembers.sol";
import {IFLBRewards} from "./IFLBRewards.sol";
import {IFLBRounds} from "./IFLBRounds.sol";

/// @title The registry of one federated run
/// @notice One immutable contract a run. It says who is a member, which datasets were committed, which round is
/// open, what each sealed round left behind, and who is paid. Readers work from its events; storage holds only what
/// the contract itself must check.
interface IFLBRun is IFLBRounds, IFLBMembers, IFLBRewards {
    /// @notice What `initialize` fixes for the life of the run.
    /// @param spec SHA-256 of the run spec (canonical JSON).
    /// @param adapter SHA-256 of adapter 0.
    /// @param steps Number of rounds to seal; at least 1.
    /// @param roundSeconds Intake window of a round, in seconds.
    /// @param graceSeconds Time after the deadline until anyone may `expire` the round, in seconds.
    /// @param minRoundSeconds Shortest time from an opening to its seal, in seconds; at most roundSeconds.
    /// @param owner May finish the run, change aggregator, admitter and endpoint, remove members and cancel payouts.
    /// @param aggregator May roll rounds and change the endpoint.
    /// @param admitter Signs invites and may remove members; zero makes membership open, for good.
    /// @param token ERC-20 that is paid out; zero for none. Needs an admitter. The factory appends it to the clone's
    /// code, from where the run reads it.
    /// @param payoutDelaySeconds Time from the seal of a round to the activation of its payout, in seconds; at most 63
    /// rounds of minRoundSeconds.
    /// @param uri Where the aggregator listens, for example `127.0.0.1:50051`; may be empty until it is known.
    /// @param certDigest SHA-256 of the certificate that the aggregator presents; zero for one of the system's
    /// authorities, or for plaintext on loopback (`http://` in `uri`).
    /// @param nextCertDigest The certificate after it, or zero.
    struct Settings {
        bytes32 spec;
        bytes32 adapter;
        uint32 steps;
        uint32 roundSeconds;
        uint32 graceSeconds;
        uint32 minRoundSeconds;
        address owner;
        address aggregator;
        address admitter;
        address token;
        uint32 payoutDelaySeconds;
        string uri;
        bytes32 certDigest;
        bytes32 nextCertDigest;
    }

    /// @notice Fixes the run. Once, and never on the implementation itself.
    function initialize(Settings calldata settings) external;
}
