# SPDX-License-Identifier: Apache-2.0
"""The hash chain of a run: Python and the contract compute the same."""

from dataclasses import replace

import pytest

from flb import audit, records
from flb import events as chain_events
from flb.chain.registry import call_view
from flb.events import ChainEvent
from flb.types import ZERO_DIGEST, Digest, Round
from tests.chains import Deployed, a_roll, later

pytestmark = pytest.mark.chain


def played(deployed: Deployed) -> list[ChainEvent]:
    """Rounds 1 and 3 are rolled, 2 and 4 are void, and 5 is the last."""
    deployed.owner.start()
    for number in (1, 3):
        deployed.aggregator.roll(a_roll(number))
        later(deployed.rpc, 151)
        deployed.nodes[0].expire(Round(number + 1))
    deployed.owner.finish()
    deployed.aggregator.roll(a_roll(5))
    reader = deployed.registry()
    assert reader.poll().finished
    return reader.events


def test_record_hash__rolled_and_void_rounds__equal_the_contract(deployed: Deployed) -> None:
    events = played(deployed)
    previous = ZERO_DIGEST
    seen = []
    for event in events:
        if isinstance(event, chain_events.ChainRoundRolled):
            computed = records.roll_hash(audit.roll_of(event), previous, event.seed, event.deadline)
        elif isinstance(event, chain_events.ChainRoundVoided):
            computed = records.void_hash(event.round, previous, event.seed, event.deadline)
        else:
            continue
        assert computed == event.record_hash
        assert (computed,) == call_view(deployed.rpc, deployed.run, "recordHash", event.round)
        previous = computed
        seen.append(event.round)
    assert seen == [1, 2, 3, 4, 5]
    assert call_view(deployed.rpc, deployed.run, "recordHash", 6) == (ZERO_DIGEST,)
    finished = events[-1]
    assert isinstance(finished, chain_events.ChainRunFinished)
    assert finished.record_hash == previous


def test_check_hash_chain__events_of_a_chain__has_a_finding_only_where_one_is_altered(deployed: Deployed) -> None:
    events = played(deployed)
    assert list(audit.check_hash_chain(events)) == []
    for index, event in enumerate(events):
        if isinstance(event, chain_events.ChainRoundRolled | chain_events.ChainRoundVoided):
            altered = [*events[:index], replace(event, seed=Digest(b"\x01" * 32)), *events[index + 1 :]]
            assert [finding.round for finding in audit.check_hash_chain(altered)] == [event.round]
