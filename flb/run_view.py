# SPDX-License-Identifier: Apache-2.0
"""What the registry says of a run at one moment: the value that `flb.roster` folds events into."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flb import events as chain
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Block, Digest, Member, Round, Seconds, Step


@dataclass(frozen=True, slots=True)
class OpenRound:
    """An opening before the cohort is drawn from it."""

    round: Round
    step: Step
    seed: Digest
    deadline: Seconds
    base: Digest
    previous: Digest
    block: Block
    roster: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """What the events say so far, up to the newest block that holds one, `block_number`."""

    spec: Digest = ZERO_DIGEST
    adapter: Digest = ZERO_DIGEST
    """The newest adapter: adapter 0 before the first seal."""
    members: Mapping[Address, Member] = field(default_factory=dict)
    before: Mapping[Address, Member | None] = field(default_factory=dict)
    """Members that the newest block changed, with what stood for them before it; None for those that it brought."""
    datasets: Mapping[Address, Mapping[Digest, int]] = field(default_factory=dict)
    """The roots that count for a member, with their records, in the order of registration."""
    block_number: int = -1
    opening: OpenRound | None = None
    rolls: tuple[chain.ChainRoundRolled, ...] = ()
    openings: Mapping[Round, OpenRound] = field(default_factory=dict)
    """Every round that was opened, the open one included."""
    finished: bool = False
    last: Round | None = None
    """The round that the owner made the last one."""
    aggregator: Address = ZERO_ADDRESS
    next_aggregator: Address | None = None
    """Leads from the next opening on."""
    uri: str = ""
    cert_digest: Digest = ZERO_DIGEST
    next_cert_digest: Digest = ZERO_DIGEST
    payout_round: Round = Round(0)
    """The newest round whose payout root is active; 0 for none."""
    payout_root: Digest = ZERO_DIGEST
    cancelled: frozenset[Round] = frozenset()
    """Rounds whose payout root the owner cancelled."""
    claimed: Mapping[Address, int] = field(default_factory=dict)
    """What was paid for each node so far, in the token's smallest unit."""
