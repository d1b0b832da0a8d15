# SPDX-License-Identifier: Apache-2.0
"""The head start: a node trains from the announcement on, and seals once its own RPC shows the same block.

Training on a false announcement costs time alone: nothing is sealed, charged or sent before the chain has confirmed it.
"""

import threading
from collections.abc import Callable

from flb.errors import Unavailable, WrongRound
from flb.roster import RunView
from flb.types import Address
from flb_node.answers import Announcement
from flb_node.ports import Chain

POLLS = 240
"""So often an announced block may be missing at this node's RPC: a minute on this machine, a quarter of an hour else."""


def is_news(told: Announcement, view: RunView, node: Address) -> bool:
    """Whether this node may train for a round that its own view of the chain does not show yet."""
    own = view.opening
    return node in told.cohort and (own is None or own.round < told.round)


def await_block(
    told: Announcement,
    chain: Chain,
    stop: threading.Event,
    poll_seconds: float,
    log: Callable[[str], None],
    holds: Callable[[], bool],
    polls: int = POLLS,
) -> None:
    """Return once the newest block at this node's RPC has opened the announced round, whatever its seed.

    Raises WrongRound where the chain says something else, goes on to say nothing of it, or the announcement does not
    `holds` any more; Unavailable once the node is told to stop.
    """
    over = WrongRound(
        f"round {told.round} was announced, and this node's chain does not open it", "the work is dropped"
    )
    for _ in range(polls):
        opened = None
        try:
            head = chain.head()
            opened = head.opening
        except Unavailable as error:
            log(f"{error}; trying again")
        else:
            if opened is not None and (opened.round, opened.step, opened.base) == (told.round, told.step, told.base):
                return
            if head.finished or not holds() or (opened is not None and opened.round >= told.round):
                raise over
        if stop.wait(poll_seconds):
            raise Unavailable("this node was told to stop", "start it again")
    raise over
