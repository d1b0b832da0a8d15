# SPDX-License-Identifier: Apache-2.0
"""What the aggregator answers, as values."""

from dataclasses import dataclass

from flb.types import ZERO_DIGEST, Address, Digest, Round, Step


@dataclass(frozen=True, slots=True)
class Announcement:
    """What the aggregator says, signed, of the open round; round 0 for none. Nothing follows from it but a start."""

    round: Round
    seed: Digest
    step: Step
    base: Digest
    cohort: frozenset[Address]
    """Who may train now; empty once intake is over."""
    record: Digest = ZERO_DIGEST
    """The record of the round that made `base`; zero for adapter 0."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """What the aggregator says of a membership message: accepted, mined, skipped or refused, and why."""

    state: str
    error: str = ""
    """The contract's name for it."""
    reason: str = ""
    tx: bytes = b""
