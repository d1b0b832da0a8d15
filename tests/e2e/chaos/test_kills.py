# SPDX-License-Identifier: Apache-2.0
"""Kill -9 before and after every kind of journal fact, at each durable step of a node, and in the middle of bytes.

The short form puts many kills into one run. The long form (FLB_CHAOS=full) has one run for each place, and random byte
positions from the seed FLB_CHAOS_SEED, which each test prints.
"""

import os
import random
from typing import get_args

import pytest

from flb.rounds import Fact
from flb.types import Digest
from tests.e2e.chaos.conftest import FULL, Chaos

pytestmark = pytest.mark.e2e

KINDS = [kind.__name__ for kind in get_args(Fact)]
ROUND_OF_KIND = {"PeerUploadBegun": 1, "PeerUpdateAdmitted": 2, "IntakeClosed": 3, "StepCombined": 4}
"""In which round of the short form the journal's kinds have their turn: one for each, so that none hides another."""
DURABLE = {
    "secret": ("before:file.secret:1", "during:file.secret:1", "after:file.secret:1"),
    "sealed blob": ("before:adopt.part:1", "after:adopt.part:1"),
    "sealed note": ("before:file.step:1", "during:file.step:1", "after:file.step:1"),
    "receipt": ("before:file.receipt:1", "during:file.receipt:1", "after:file.receipt:1"),
    "last download": ("before:adopt.download:6", "after:adopt.download:6"),
}
"""What a node makes durable, and the places around it."""
SENDING = ("upload.sent", "download.received", "blob.written")
RECEIVING = ("upload.received", "download.sent", "blob.written")
BYTES = 15_000
"""About the size of an update; an adapter has twice as many."""
SEED = int(os.environ.get("FLB_CHAOS_SEED", "1"))


def facts() -> list[str]:
    """Before and after each kind of fact, as the journal names them."""
    return [f"{when}:fact.{kind}:{ROUND_OF_KIND[kind]}" for kind in KINDS for when in ("before", "after")]


def test_kinds__of_the_journal__have_a_case_each() -> None:
    assert set(ROUND_OF_KIND) == set(KINDS)


def test_run__many_kills__ends_with_the_same_adapters(chaos: Chaos, reference: list[Digest]) -> None:
    kills = {
        "aggregator": [*facts(), "at:upload.received:2000", "at:download.sent:3000", "at:blob.written:7000"],
        "node-1": ["during:file.secret:1", "at:download.received:4000", "after:adopt.part:1", "after:file.step:1"],
        "node-2": ["at:blob.written:1234", "at:upload.sent:5000", "during:file.receipt:1", "before:adopt.download:2"],
    }
    with chaos("killed", kills=kills) as run:
        run.start()
        run.finish()
        run.check(reference)
        assert len(run.deaths) == sum(map(len, kills.values()))


def at_bytes(kinds: tuple[str, ...], count: int, seed: int) -> list[str]:
    """Random positions in each kind of transfer or blob."""
    chance = random.Random(seed)
    return [f"at:{kind}:{chance.randrange(1, BYTES)}" for kind in kinds for _ in range(count)]


def matrix() -> list[tuple[str, str]]:
    """Every place of the long form, with the process that dies there."""
    durable = [place for places in DURABLE.values() for place in places]
    return [
        *(("aggregator", place) for place in [*facts(), *at_bytes(RECEIVING, 3, SEED)]),
        *(("node-1", place) for place in [*durable, *at_bytes(SENDING, 3, SEED + 1)]),
    ]


if FULL:

    @pytest.mark.parametrize(("name", "place"), matrix())
    def test_run__one_kill__ends_with_the_same_adapters(
        chaos: Chaos, reference: list[Digest], name: str, place: str
    ) -> None:
        print(f"seed {SEED}: {name} dies {place}")
        with chaos("one", kills={name: [place]}) as run:
            run.start()
            run.finish()
            run.check(reference)
            assert run.deaths == [name]

    @pytest.mark.parametrize("seed", range(SEED, SEED + 3))
    def test_run__both_sides_killed_in_the_middle_of_bytes__ends_with_the_same_adapters(
        chaos: Chaos, reference: list[Digest], seed: int
    ) -> None:
        kills = {"aggregator": at_bytes(RECEIVING, 1, seed), "node-1": at_bytes(SENDING, 1, seed + 100)}
        print(f"seed {seed}: {kills}")
        with chaos("both", kills=kills) as run:
            run.start()
            run.finish()
            run.check(reference)
            assert len(run.deaths) == 6
