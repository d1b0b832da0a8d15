# SPDX-License-Identifier: Apache-2.0
"""A federation whose processes die at named places and are started again, and what must hold at its end."""

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from flb import identity
from flb import spec as specs
from flb.errors import ChainUnavailable
from flb.roster import RunView
from flb.types import Digest, Step
from flb_cli.federation import Federation
from flb_cli.replay import replay
from flb_cli.verify import from_folder
from flb_node.pipeline import training_seed
from tests.e2e.chaos.training import SECONDS, TRAININGS

CHUNK = 1_500
"""Bytes a chunk: an update of the tiny model has about as many chunks as a real one."""
POLL_SECONDS = 0.02
RUN_SECONDS = 200.0


@dataclass
class Disturbed:
    """Starts, restarts and checks; `kills` are places of `killing.py` by the name of a process."""

    federation: Federation
    kills: dict[str, Sequence[str]] = field(default_factory=dict)
    rpc: str | None = None
    """Where the daemons look for the chain, if not at the chain itself: a proxy."""
    behind: str | None = None
    """Where the aggregator listens, if its address on chain is that of a proxy."""
    training_seconds: float = 0.0
    """How long a training lasts, so that something can happen meanwhile."""
    deaths: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The nodes."""
        return [f"node-{index + 1}" for index in range(len(self.federation.datasets))]

    @property
    def marks(self) -> Path:
        """Where a place that has done its work leaves a mark."""
        return self.federation.folder / "marks"

    # ------------------------------------------------------------- starting

    def set_up(self) -> None:
        """Chain, contract, config files."""
        if self.federation.chain is None:
            self.federation.start_chain()
        self.federation.deploy()
        for name in ("aggregator", *self.names) if self.rpc else ():
            self.reroute(name)

    def reroute(self, name: str) -> None:
        """Point one process to the proxy before the chain."""
        path = self.federation.folder / f"{name}.yaml"
        config = yaml.safe_load(path.read_text())
        config["chain"]["rpc"] = self.rpc
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def start(self) -> None:
        """Everything, up to the open first round."""
        self.set_up()
        self.begin()

    def begin(self) -> None:
        """The daemons, then round 1 once all are members."""
        for name in ("aggregator", *self.names):
            self.spawn(name)
        count = len(self.names)
        self.until(lambda view: sum(member.records > 0 for member in view.members.values()) == count)
        assert self.federation.owner is not None
        self.federation.owner.start()

    def spawn(self, name: str) -> None:
        """Start one daemon, or start it again, under `killing.py`."""
        command = [sys.executable, "-m", "tests.e2e.chaos.killing", "--numpy", "--marks", str(self.marks / name)]
        command += ["--chunk", str(CHUNK)]
        for place in self.kills.get(name, ()):
            command += ["--kill", place]
        if self.behind and name == "aggregator":
            command += ["--bind", self.behind]
        command += ["aggregator" if name == "aggregator" else "node"]
        command += ["--config", str(self.federation.folder / f"{name}.yaml")]
        environment = {**os.environ, SECONDS: str(self.training_seconds)}
        self.federation.spawn_command(name, command, cwd=Path(__file__).resolve().parents[3], env=environment)

    # -------------------------------------------------------------- running

    def mend(self) -> None:
        """Start again what was killed; anything else that ended badly is a failure."""
        for name, child in list(self.federation.children.items()):
            code = child.process.poll()
            if code == -signal.SIGKILL:
                self.deaths.append(name)
                self.spawn(name)
            else:
                assert code in (None, 0), f"{name} ended with {code}: {child.log.read_text(errors='replace')[-2000:]}"

    def wait(self, condition: Callable[[], bool], seconds: float = RUN_SECONDS) -> None:
        """Mend until a condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.mend()
            assert time.monotonic() < deadline, f"it did not happen; {self.last_lines()}"
            time.sleep(POLL_SECONDS)

    def until(self, condition: Callable[[RunView], bool], seconds: float = RUN_SECONDS) -> RunView:
        """Mend until the chain satisfies a condition. A chain that is away does not, and the wait goes on."""
        met: list[RunView] = []

        def look() -> bool:
            with contextlib.suppress(ChainUnavailable):
                view = self.federation.view()
                if condition(view):
                    met.append(view)
            return bool(met)

        self.wait(look, seconds)
        return met[-1]

    def last_lines(self) -> str:
        """What everybody said last."""
        return "; ".join(f"{name}: {child.last_line()}" for name, child in self.federation.children.items())

    def kill(self, name: str) -> None:
        """SIGKILL now; `mend` starts it again."""
        process = self.federation.children[name].process
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def finish(self) -> RunView:
        """The end of the run, and of every node by itself."""
        view = self.until(lambda view: view.finished)
        self.wait(lambda: all(self.federation.children[name].process.poll() == 0 for name in self.names), 60)
        spool = self.federation.folder / "aggregator" / "spool"
        self.wait(lambda: not list(spool.iterdir()), 20)
        return view

    # ------------------------------------------------------------- judging

    def adapters(self) -> list[Digest]:
        """Digest of each sealed round's adapter, in order."""
        return [roll.adapter_digest for roll in self.federation.view().rolls]

    def check(self, reference: Sequence[Digest]) -> None:
        """All that must hold at the end of a disturbed run."""
        missed = [p for name, places in self.kills.items() for p in places if not self.mark(name, p).exists()]
        assert missed == [], "a place that was never reached proves nothing"
        assert self.adapters() == list(reference)
        material = from_folder(self.federation.folder, None, False)
        report = replay(material.events, material.domain, material.fetch)
        said = [*map(str, report.findings), *report.unchecked]
        assert report.verdict == "exact", f"verify says {report.verdict}: {said}"
        self.check_trainings()

    def mark(self, name: str, place: str) -> Path:
        """The mark of one place."""
        return self.marks / name / place.replace(":", "_")

    def check_trainings(self) -> None:
        """Nothing was trained after it was sealed."""
        spec = specs.decode((self.federation.folder / "aggregator" / "spec.json").read_bytes())
        for name in self.names:
            node = identity.address_of(self.federation.keys[name])
            steps = {training_seed(spec, Step(n), node): f"step-{n:04d}-" for n in range(1, spec.rounds.steps + 1)}
            for line in (self.federation.folder / name / TRAININGS).read_text().splitlines():
                training = json.loads(line)
                again = [note for note in training["sealed"] if note.startswith(steps[training["seed"]])]
                assert again == [], f"{name} trained what it had sealed"
