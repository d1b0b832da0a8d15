# SPDX-License-Identifier: Apache-2.0
"""Links that are cut, stalled and repeated, between nodes and aggregator and between both and the chain, and reorgs.

The short form puts every disturbance into one run, a round or two for each; the long form (FLB_CHAOS=full) has one run
for each, and both a second time with a kill of the aggregator on top, and an outage of the chain of ten minutes.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from flb.chain import local
from flb.errors import ChainUnavailable
from flb.types import Digest
from tests.e2e.chaos.conftest import FULL, Chaos
from tests.e2e.chaos.disturbed import Disturbed
from tests.e2e.chaos.proxy import Proxy, Requests, proxy, requests
from tests.e2e.chaos.training import TRAININGS

pytestmark = pytest.mark.e2e

SEED = int(os.environ.get("FLB_CHAOS_SEED", "1"))
AWAY_SECONDS = 1.5
"""Longer than a daemon waits between two tries."""
MINUTES_SECONDS = 130.0
"""How long chain and links are away in the long form: beyond every idle and keepalive timeout."""
OUTAGE_SECONDS = 600.0
"""How long the chain stands still while updates wait for it, in the long form: twenty times as long as a request waits."""


@dataclass
class Linked:
    """A run whose links go through proxies of the test. `aggregator` is what the chain names as the endpoint."""

    run: Disturbed
    aggregator: Proxy
    chain: Proxy
    requests: Requests
    away_seconds: float = AWAY_SECONDS

    def open(self, number: int) -> None:
        """Wait for an open round, this one or a later one."""
        self.run.until(lambda view: view.opening is not None and view.opening.round >= number)

    def rpc(self, method: str, *values: Any) -> Any:
        """Ask the chain itself."""
        assert self.run.federation.chain is not None
        return self.run.federation.rpc().call(method, *values)


@contextmanager
def linked(chaos: Chaos, name: str, **options: Any) -> Iterator[Linked]:
    """Chain and contract behind proxies; the daemons are not started."""
    with chaos(name, training_seconds=0.3, **options) as run:
        run.federation.start_chain()
        assert run.federation.chain is not None
        with (
            proxy(run.federation.chain.url.removeprefix("http://")) as chain,
            requests(f"http://{chain.address}") as (queue, run.rpc),
        ):
            run.set_up()
            config = yaml.safe_load((run.federation.folder / "aggregator.yaml").read_text())
            run.behind = f"127.0.0.1:{local.free_port()}"
            with proxy(run.behind, int(config["server"]["listen"].rpartition(":")[2])) as aggregator:
                yield Linked(run, aggregator, chain, queue)
                run.federation.stop()


# --- disturbances: each is called while round `number` is open or about to open ------------------------------------


def cut_in_bytes(links: Linked, number: int) -> None:
    """The aggregator's connections end at a random byte that nodes send."""
    position = random.Random(SEED).randrange(500, 12_000)
    print(f"cut at byte {position}, seed {SEED}")
    links.aggregator.cut_after(position)
    links.run.wait(lambda: links.aggregator.cuts >= 1)


def empty_blocks_undone(links: Linked, number: int) -> None:
    """Blocks that said nothing vanish under an open round."""
    links.open(number)
    taken = links.rpc("evm_snapshot")
    links.rpc("hardhat_mine", "0x3")
    time.sleep(0.3)
    assert links.rpc("evm_revert", taken)


def stopped(links: Linked, number: int) -> None:
    """The chain stands still, and no byte reaches the aggregator."""
    links.open(number)
    chain = links.run.federation.chain
    assert chain is not None
    os.killpg(chain.process.pid, signal.SIGSTOP)
    links.aggregator.stall(True)
    time.sleep(links.away_seconds)
    os.killpg(chain.process.pid, signal.SIGCONT)
    links.aggregator.stall(False)


def away(links: Linked, number: int) -> None:
    """Chain and aggregator refuse connections, and the open ones end."""
    links.open(number)
    for link in (links.chain, links.aggregator):
        link.refusing = True
        link.cut()
    time.sleep(links.away_seconds)
    for link in (links.chain, links.aggregator):
        link.refusing = False


def rolls_undone(links: Linked, number: int) -> None:
    """One roll, then two, are taken back once they were seen, with the rounds that they opened."""
    for count in (1, 2):
        links.open(number)
        taken = links.rpc("evm_snapshot")
        sealed = len(links.run.adapters())
        links.run.until(lambda view, wanted=sealed + count: len(view.rolls) >= wanted)
        assert links.rpc("evm_revert", taken)


def repeated(links: Linked, number: int) -> None:
    """Every request reaches the chain twice; then a transaction arrives whose answer is lost."""
    links.open(number)
    links.requests.repeating = True
    links.run.until(lambda view: len(view.rolls) >= number)
    links.requests.repeating, links.requests.losing = False, 1
    links.run.wait(lambda: links.requests.lost == 1)
    assert links.requests.repeated > 0


def stopped_with_updates(links: Linked, number: int) -> None:
    """The chain stands still once every node holds its trained update; none is lost, and none is trained again."""
    folder, nodes = links.run.federation.folder, links.run.names
    links.run.wait(lambda: all(len(lines_of(folder / name / TRAININGS)) >= number for name in nodes))
    links.aggregator.stall(True)
    notes = [folder / name / f"step-{number:04d}-*.json" for name in nodes]
    links.run.wait(lambda: all(list(note.parent.glob(note.name)) for note in notes))
    chain = links.run.federation.chain
    assert chain is not None
    os.killpg(chain.process.pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        links.aggregator.stall(False)
        while time.monotonic() < started + links.away_seconds:
            links.run.mend()  # nobody may end meanwhile
            time.sleep(1.0)
    finally:
        os.killpg(chain.process.pid, signal.SIGCONT)
    for _ in range(60):  # the chain first ends the connections that were open when it stopped, the test's own included
        with suppress(ChainUnavailable):
            links.run.federation.view()
            return
        time.sleep(1.0)


def lines_of(path: Path) -> list[str]:
    """The lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


DISTURBANCES = (cut_in_bytes, empty_blocks_undone, stopped, away, rolls_undone, repeated)
ROUND_OF = {cut_in_bytes: 1, empty_blocks_undone: 1, stopped: 2, away: 2, rolls_undone: 3, repeated: 4}
assert set(ROUND_OF) == set(DISTURBANCES)


def disturb(links: Linked, *disturbances: Callable[[Linked, int], None]) -> None:
    """A whole run with disturbances in their order."""
    links.run.begin()
    for disturbance in disturbances:
        disturbance(links, ROUND_OF[disturbance])
    links.run.finish()


def test_run__every_link_disturbed__ends_with_the_same_adapters(chaos: Chaos, reference: list[Digest]) -> None:
    with linked(chaos, "links") as links:
        disturb(links, *DISTURBANCES)
        links.run.check(reference)
        assert links.run.deaths == []


if FULL:

    @pytest.mark.timeout(OUTAGE_SECONDS + 400)
    def test_run__chain_away_for_ten_minutes_over_trained_updates__ends_with_the_same_adapters(
        chaos: Chaos, reference: list[Digest]
    ) -> None:
        with linked(chaos, "outage") as links:
            links.away_seconds = OUTAGE_SECONDS
            links.run.begin()
            stopped_with_updates(links, 2)
            links.run.finish()
            links.run.check(reference)
            assert links.run.deaths == []

    @pytest.mark.parametrize("kills", [(), ("after:fact.IntakeClosed:4", "before:fact.StepCombined:4")], ids=str)
    @pytest.mark.parametrize("disturbance", DISTURBANCES)
    def test_run__one_disturbance__ends_with_the_same_adapters(
        chaos: Chaos, reference: list[Digest], disturbance: Callable[[Linked, int], None], kills: tuple[str, ...]
    ) -> None:
        with linked(chaos, "one", kills={"aggregator": kills}) as links:
            links.away_seconds = AWAY_SECONDS if kills else MINUTES_SECONDS
            disturb(links, disturbance)
            links.run.check(reference)
            assert len(links.run.deaths) == len(kills)
