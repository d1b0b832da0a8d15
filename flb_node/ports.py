# SPDX-License-Identifier: Apache-2.0
"""What the daemon asks of the chain, and where it says what it does; `flb_node.app` plugs in the real ones."""

from typing import Protocol

from flb.roster import RunView
from flb.types import Digest


class Chain(Protocol):
    """The registry port; every call blocks and may raise ChainUnavailable or LostChain."""

    def view(self) -> RunView:
        """What holds now."""
        ...

    def head(self) -> RunView:
        """What the newest block says, which a reorg may undo."""
        ...

    def spec(self) -> Digest:
        """SHA-256 of the run spec, which the contract holds from its first block on."""
        ...

    def confirm(self, blocks: int) -> None:
        """From now on believe only what lies under so many blocks."""
        ...


class Status(Protocol):
    """Where the node says what it does, for people."""

    def __call__(self, state: str, **details: object) -> None: ...
