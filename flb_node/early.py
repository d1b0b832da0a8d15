# SPDX-License-Identifier: Apache-2.0
"""The head start: a node trains from the announcement on, and seals once its own RPC shows the same block.

Training on a false announcement costs time alone: nothing is sealed, charged or sent before the chain has confirmed it.
"""

import threading
from collections.abc import Callable

from flb.errors import Unavailable, WrongRound
from flb.roster import RunView
from flb.types import Address
from flb_node.ports import Chain
from flb_node.uplink import Announcement


def is_news(told: Announcement, view: RunView, node: Address) -> bool:
    """Whether this node may train for a round that its own view of the chain does not show yet."""
    own = view.opening
    return node in told.cohort and (own is None or own.round < told.round)


def await_block(
    told: Announcement, chain: Chain, stop: threading.Event, poll_seconds: float, log: Callable[[str], None]
) -> None:
    """Return once the newest block at this node's RPC has opened the announced round, whatever its seed.

    Raises WrongRound where the chain says something else, Unavailable once the node is told to stop.
    """
    while True:
        try:
            opened = chain.head().opening
        except Unavailable as error:
            log(f"{error}; trying again")
            opened = None
        if opened is not None and opened.round >= told.round:
            if (opened.round, opened.step, opened.base) == (told.round, told.step, told.base):
                return
            raise WrongRound(f"round {told.round} was announced, and the chain opened another", "the work is dropped")
        if stop.wait(poll_seconds):
            raise Unavailable("this node was told to stop", "start it again")
