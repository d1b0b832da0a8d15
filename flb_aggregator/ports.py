# SPDX-License-Identifier: Apache-2.0
"""What the daemon asks of the chain; `flb_aggregator.app` plugs in the real one, tests one in memory."""

from typing import Protocol

from flb.records import Roll
from flb.roster import RunView
from flb.types import Digest, Round


class Sent(Protocol):
    """What is known of a mined transaction."""

    @property
    def tx(self) -> Digest: ...
    @property
    def gas_used(self) -> int: ...


class Chain(Protocol):
    """The registry port; every call blocks and may raise ChainUnavailable or LostChain."""

    def view(self) -> RunView:
        """Read new blocks and fold them; what holds now."""
        ...

    def head(self) -> RunView:
        """What the newest block says, which a reorg may undo; the same as `view` in a run without confirmations."""
        ...

    def roll(self, roll: Roll) -> Sent:
        """Seal a round."""
        ...

    def expire(self, number: Round) -> Sent:
        """Void a round."""
        ...
