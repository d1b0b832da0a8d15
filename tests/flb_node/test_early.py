# SPDX-License-Identifier: Apache-2.0
"""The head start: training begins with the announcement, sealing waits for the node's own RPC."""

import dataclasses
import threading

import pytest

from flb.errors import ChainUnavailable, Unavailable, WrongRound
from flb.roster import RunView
from flb.types import Address, Digest, Round, Step
from flb_node import early
from flb_node.answers import Announcement
from tests.sim import MemoryRegistry, members, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()
BASE = Digest(b"\xaa" * 32)


def registry() -> MemoryRegistry:
    made = MemoryRegistry(SPEC, BASE)
    for member in members(3):
        made.join(member)
    made.start()
    return made


def told(number: int = 1, base: Digest = BASE, seed: bytes = b"s" * 32) -> Announcement:
    return Announcement(Round(number), Digest(seed), Step(1), base, frozenset(m.node for m in members(3)))


class Chain:
    """Heads one after the other; an error is raised."""

    def __init__(self, *heads: RunView | Exception) -> None:
        self.heads = list(heads)

    def head(self) -> RunView:
        head = self.heads.pop(0) if len(self.heads) > 1 else self.heads[0]
        if isinstance(head, Exception):
            raise head
        return head


def wait(
    announcement: Announcement, *heads: RunView | Exception, stopped: bool = False, holds: bool = True
) -> list[str]:
    stop, said = threading.Event(), list[str]()
    if stopped:
        stop.set()
    early.await_block(announcement, Chain(*heads), stop, 0.0, said.append, lambda: holds, 20)  # type: ignore[arg-type]
    return said


def test_await_block__own_rpc_lags_and_fails__waits_until_it_shows_the_round() -> None:
    said = wait(told(), RunView(), ChainUnavailable("away"), RunView(), registry().view())
    assert said == ["away; trying again"]


def test_await_block__same_round_of_another_fork__keeps_the_work() -> None:
    """A reorg gives the round another seed; base and step decide what was trained."""
    wait(told(seed=b"other".ljust(32)), registry().view())


@pytest.mark.parametrize("announcement", [told(base=Digest(b"\xbb" * 32)), dataclasses.replace(told(), step=Step(2))])
def test_await_block__chain_says_something_else__drops_the_work(announcement: Announcement) -> None:
    with pytest.raises(WrongRound, match="chain does not open it"):
        wait(announcement, registry().view())


def test_await_block__chain_is_past_it__drops_the_work() -> None:
    made = registry()
    made.expire(Round(1))
    with pytest.raises(WrongRound):
        wait(told(), made.view())


def test_await_block__told_to_stop__ends() -> None:
    with pytest.raises(Unavailable, match="told to stop"):
        wait(told(), RunView(), stopped=True)


def test_is_news__own_view_shows_it_or_not_drawn__is_none() -> None:
    view, node = registry().view(), members(3)[0].node
    assert early.is_news(told(), RunView(), node) and early.is_news(told(2), view, node)
    assert not early.is_news(told(), view, node)
    assert not early.is_news(told(), RunView(), Address(b"\x01" * 20))


def test_await_block__round_that_never_comes__is_given_up() -> None:
    """One false announcement must not hold a node for ever."""
    with pytest.raises(WrongRound, match="does not open it"):
        wait(told(1_000_000), registry().view())


def test_await_block__run_finished_or_another_announcement__is_given_up_at_once() -> None:
    with pytest.raises(WrongRound):
        wait(told(9), dataclasses.replace(RunView(), finished=True))
    with pytest.raises(WrongRound):
        wait(told(9), RunView(), holds=False)
