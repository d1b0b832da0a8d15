# SPDX-License-Identifier: Apache-2.0
"""How updates become an adapter, in whole runs of the real processes: every LoRA mode, with rules and optimizers.

One chain serves all runs. Each run is an aggregator and three nodes, and is then verified by a process of its own.
"""

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flb.chain import local
from flb.roster import RunView
from flb_cli.federation import Federation
from tests.chains import cache
from tests.e2e.test_federation import verify

pytestmark = pytest.mark.e2e

NODES = ("node-1", "node-2", "node-3")
EQUAL = {"weights": "equal"}
RUNS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, int], str]] = {
    "stack": (
        {"mode": "stack", "ranks": [1, 2], "max_rank": 12},
        {"max_cohort": 3},
        {"node-1": 1, "node-3": 1},
        "exact",
    ),
    "freeze_a": (
        {"mode": "freeze_a"},
        {"aggregation": {"rule": "trimmed_mean", "byzantine": 1, **EQUAL}},
        {},
        "exact",
    ),
    "factors": ({"mode": "factors", "residual_rank": 2}, {}, {}, "certified"),
    "alternate": (
        {"mode": "alternate"},
        {"aggregation": {"rule": "multi_krum", **EQUAL}, "server_optimizer": {"name": "momentum"}},
        {},
        "exact",
    ),
}
"""Sections `lora` and `run`, the nodes that train at a rank of their own, and what `flb verify` says."""
SHOWN = tuple(RUNS) if os.environ.get("FLB_FULL") else ("stack", "factors")
"""Runs of a usual test, of about 15 seconds each; all of them in a full one."""
PRODUCT: tuple[dict[str, Any], dict[str, Any]] = (
    {"mode": "product", "align": True},
    {"server_optimizer": {"name": "adam", "learning_rate": 1e-3}},
)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local.LocalChain]:
    """One chain for all runs."""
    with (tmp_path_factory.mktemp("chain") / "chain.log").open("wb") as log:
        started = local.start(local.install(cache(), print), log, tied=True)
        try:
            yield started
        finally:
            started.stop()


@pytest.fixture
def make(
    chain: local.LocalChain, base: Path, datasets: list[Path], tmp_path: Path
) -> Iterator[Callable[[dict[str, Any], dict[str, Any]], Federation]]:
    """Makes a run on the shared chain, which outlives it."""
    made: list[Federation] = []

    def deployed(lora: dict[str, Any], run: dict[str, Any]) -> Federation:
        settings = {
            "lora": {"r": 2, "alpha": 4, **lora},
            "training": {"local_steps": 2, "batch_size": 2, "learning_rate": 0.01, "max_length": 64},
            "run": {"steps": 2, "min_nodes": 3, "audit": "public", "codec": "bf16", **run},
        }
        federation = Federation(tmp_path / "run", base, datasets, settings, cache(), dtype="float32", threads=1)
        federation.folder.mkdir()
        federation.chain = chain
        made.append(federation)
        federation.deploy()
        return federation

    yield deployed
    for federation in made:
        federation.chain = None
        federation.stop()


def begin(federation: Federation) -> None:
    """The daemons, then round 1 once all nodes are members."""
    for name in ("aggregator", *NODES):
        federation.spawn(name)
    federation.await_members()
    assert federation.owner is not None
    federation.owner.start()


def finish(federation: Federation) -> RunView:
    """The end of the run, at which every node has the last adapter of the chain, in a file that holds what it is named."""
    view = federation.await_view(lambda view: view.finished, 150)
    last = view.rolls[-1].adapter_digest.hex()
    for name in NODES:
        assert federation.children[name].process.wait(60) == 0
        blob = federation.folder / name / "blobs" / last
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == last
    assert [roll.accepted for roll in view.rolls] == [3, 3]
    federation.write_events()
    return view


@pytest.mark.parametrize("name", SHOWN)
def test_run__mode_and_rule__ends_and_verifies(name: str, make: Any) -> None:
    lora, run, ranks, verdict = RUNS[name]
    federation = make(lora, run)
    for node, rank in ranks.items():
        path = federation.folder / f"{node}.yaml"
        config = yaml.safe_load(path.read_text())
        config["client"]["rank"] = rank
        path.write_text(yaml.safe_dump(config, sort_keys=False))
    begin(federation)
    finish(federation)
    code, report = verify(federation.folder)
    assert (code, report["verdict"], report["findings"], report["unchecked"]) == (0, verdict, [], [])
    assert len(report["rounds"]) == 2


def test_run__product_with_adam_and_a_killed_aggregator__ends_certified_with_what_was_announced(make: Any) -> None:
    federation = make(*PRODUCT)
    begin(federation)
    log = federation.folder / "aggregator.log"
    wait(lambda: "round 1: adapter" in log.read_text())
    wait(lambda: "admitted" in log.read_text().partition("round 1: adapter")[2])
    child = federation.children["aggregator"]
    os.killpg(child.process.pid, signal.SIGKILL)
    child.process.wait()
    announced = federation.view().rolls[0].adapter_digest
    assert len(federation.view().rolls) == 1, "it was killed in the middle of round 2"
    federation.spawn("aggregator")
    view = finish(federation)
    assert view.rolls[0].adapter_digest == announced
    said = log.read_text()
    for roll in view.rolls:
        assert f"round {roll.round}: adapter {roll.adapter_digest.hex()[:8]}" in said
    code, report = verify(federation.folder)
    assert (code, report["verdict"], report["findings"], report["unchecked"]) == (0, "certified", [], [])


def wait(condition: Callable[[], bool], seconds: float = 90) -> None:
    """Until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
