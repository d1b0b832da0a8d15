# SPDX-License-Identifier: Apache-2.0
"""The bench of the registry replays logs that are what it says they are."""

import pytest

from bench.chain import raw_logs, replay, signatures
from flb.chain.events import from_log
from flb.events import ChainDatasetRegistered, ChainNodeJoined, ChainNodeLeft, ChainRoundRolled
from flb.roster import fold

pytestmark = pytest.mark.unit


def test_raw_logs__any_count__are_so_many_joins_datasets_and_rolls() -> None:
    events = [from_log(log) for log in raw_logs(1_000)]
    assert len(events) == 1_000
    kinds = {type(event) for event in events}
    assert {ChainNodeJoined, ChainDatasetRegistered, ChainRoundRolled} <= kinds


def test_replay__in_ranges__is_the_fold_of_every_log() -> None:
    view, events, spent = replay(5_000)
    assert view == fold(event for log in raw_logs(5_000) if (event := from_log(log)) is not None)
    assert len(events) == 5_000 and spent > 0


def test_raw_logs__long_run__has_members_that_leave_between_rounds() -> None:
    events = [from_log(log) for log in raw_logs(3_000, members=500)]
    assert any(isinstance(event, ChainNodeLeft) for event in events)


def test_signatures__few__are_all_checked() -> None:
    assert signatures(100) > 0
