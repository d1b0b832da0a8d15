# SPDX-License-Identifier: Apache-2.0
"""One simulated run from its settings to its folder: spec, base model, nodes, engine, and what is written down.

The folder holds run.json, spec.json, events.jsonl, blobs/, adapters/, records/, nodes/ and report.json.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb import spec as specs
from flb.chain.events import to_json
from flb.config import Config
from flb.delta import assert_ieee
from flb.errors import FLBError
from flb.memory_registry import MemoryRegistry
from flb.merkle import keccak256
from flb.spec import RunSpec
from flb.store import BlobStore, write_atomic
from flb.types import Address, Digest, Domain, Step
from flb_aggregator.intake import Spool
from flb_aggregator.metrics import peak_rss_mib
from flb_aggregator.publish import adapter_folder
from flb_cli import simulate_attack, simulate_node
from flb_cli.deploy import make_spec
from flb_cli.simulate_aggregator import Aggregator
from flb_cli.simulate_attack import Attackers
from flb_cli.simulate_data import Dealt
from flb_cli.simulate_engine import ENGINE, Serial
from flb_cli.simulate_node import Node
from flb_cli.simulate_view import View
from flb_node import data, pipeline
from flb_node.evaluation import Figures

if TYPE_CHECKING:
    from flb_cli.simulate_model import Model

CHAIN_ID = 0
"""No chain has it, so nothing that is signed in a simulated run counts anywhere else."""


@dataclass(slots=True)
class Simulation:
    """A run in `folder`, which is new."""

    config: Config
    folder: Path
    dealt: Dealt
    attackers: Attackers
    view: View
    started: float = field(default_factory=time.perf_counter)
    losses: list[float | None] = field(default_factory=list)
    """By step; that of the base, which adapter 0 leaves as it is, stands first."""
    _written: int = 0

    def run(self) -> dict[str, Any]:
        """Everything; returns what `--json` prints. Raises FLBError; where that is before the first step, nothing stays."""
        assert_ieee()
        try:
            engine = self.open()
        except FLBError:
            shutil.rmtree(self.folder)
            raise
        try:
            engine.run()
        finally:
            self.write_events(engine.aggregator)
        engine.aggregator.spool.folder.rmdir()
        result = self.result(engine)
        write_atomic(self.folder / "report.json", json.dumps(result, indent=2).encode() + b"\n")
        return {name: value for name, value in result.items() if name not in ("lines", "rejections")}

    def open(self) -> Serial:
        """Spec, base model and nodes: all that may be refused. The base is measured."""
        from flb_cli import simulate_model

        parts = self.trained_parts()
        spec = plan(self.config, self.folder)
        aggregator = open_aggregator(spec, self.folder)
        self.view.say("loading the base model")
        model = simulate_model.load(self.config, spec, self.dealt.held_out)
        nodes = [self.node(number, spec, model, part) for number, part in enumerate(parts, start=1)]
        self.measure(model, aggregator, Step(0))
        engine = Serial(aggregator, nodes, BlobStore(self.folder / "nodes" / "blobs"), self.attackers)
        engine.on_node = lambda opening, node: self.view.turn(opening.step, node.number)
        engine.on_round = lambda line: self.sealed(model, aggregator, line)
        return engine

    def trained_parts(self) -> list[tuple[data.Example, ...]]:
        """What each node trains on: poisoned where the attack is one on data."""
        parts, attack = list(self.dealt.parts), self.attackers.attack
        for index in range(len(parts)):
            if attack is not None and attack.sends is None and self.attackers.include(index + 1, len(parts)):
                parts[index] = simulate_attack.poisoned(parts[index])
        return parts

    def node(self, number: int, spec: RunSpec, model: "Model", part: tuple[data.Example, ...]) -> Node:
        """Node `number`, which commits to its share of the dataset and trains on `part`."""
        folder = self.folder / "nodes" / f"{number:04d}"
        records = map(data.record_bytes, self.dealt.parts[number - 1])
        return simulate_node.make(
            number, spec.salt, records, folder, model.train_on(part, folder), self.config.client.rank
        )

    def measure(self, model: "Model", aggregator: Aggregator, step: Step) -> float | None:
        """The loss of the newest adapter on the held-out examples, None where there are none."""
        digest = Digest(bytes.fromhex(aggregator.spec.adapter)) if step == 0 else aggregator.registry.view().adapter
        found = model.measure(pipeline.load_adapter(aggregator.spec, aggregator.blobs, digest))
        self.losses.append(loss_of(found))
        return self.losses[-1]

    def sealed(self, model: "Model", aggregator: Aggregator, line: dict[str, Any]) -> None:
        """A round is sealed: measure, write events and record down, show."""
        line["eval_loss"] = self.measure(model, aggregator, line["step"])
        rolled = aggregator.registry.view().rolls[-1]
        records = self.folder / "records"
        records.mkdir(exist_ok=True)
        write_atomic(records / f"round-{rolled.round:04d}.json", aggregator.blobs.get(rolled.record_digest))
        self.write_events(aggregator)
        self.view.sealed(line)

    def write_events(self, aggregator: Aggregator) -> None:
        """Append what the registry has said since the last time."""
        new = aggregator.registry.events[self._written :]
        with (self.folder / "events.jsonl").open("a") as file:
            file.writelines(json.dumps(to_json(event)) + "\n" for event in new)
        self._written += len(new)

    def result(self, engine: Serial) -> dict[str, Any]:
        """What report.json holds; `lines` are the rounds, `rejections` the refused updates."""
        attackers, registry = self.attackers, engine.aggregator.registry
        attack = None
        if attackers.name is not None:
            attack = {"name": attackers.name, "attackers": attackers.count, "strength": attackers.strength}
        return {
            "engine": ENGINE,
            "run": "0x" + engine.aggregator.domain.run.hex(),
            "spec": engine.aggregator.spec_digest.hex(),
            "partition": self.dealt.digest.hex(),
            "nodes": len(engine.nodes),
            "rounds": len(registry.view().rolls),
            "base_eval_loss": self.losses[0],
            "final_eval_loss": self.losses[-1],
            "adapter_sha256": registry.view().adapter.hex(),
            "adapter_dir": str(adapter_folder(self.folder / "adapters", Step(engine.aggregator.spec.rounds.steps))),
            "folder": str(self.folder),
            "attack": attack,
            "rejected": len(engine.rejected),
            "wall_s": round(time.perf_counter() - self.started, 2),
            "train_s": round(engine.train_seconds, 2),
            "aggregate_s": round(engine.aggregator.combine_seconds, 3),
            "peak_rss_mib": round(peak_rss_mib(), 1),
            "lines": engine.lines,
            "rejections": engine.rejected,
        }


def plan(config: Config, folder: Path) -> RunSpec:
    """The spec as `flb chain deploy` makes it, with a salt that follows from the seed. Raises what that raises."""
    salt = hashlib.sha256(b"flb simulate" + config.training.seed.to_bytes(8, "big")).hexdigest()
    return dataclasses.replace(make_spec(config, folder), salt=salt)


def open_aggregator(spec: RunSpec, folder: Path) -> Aggregator:
    """The aggregator of a new run, with what `flb verify` asks of a folder. `folder` holds adapter 0 already."""
    encoded = spec.encode()
    digest, blobs = specs.digest_of(encoded), BlobStore(folder / "blobs")
    blobs.put(encoded)
    domain = Domain(CHAIN_ID, Address(keccak256(b"flb simulated run" + digest)[12:]))
    write_atomic(folder / "spec.json", encoded)
    note = {"run": "0x" + domain.run.hex(), "chain_id": CHAIN_ID, "deploy_block": 0, "rpc": None, "spec": digest.hex()}
    write_atomic(folder / "run.json", json.dumps(note, indent=2).encode())
    registry = MemoryRegistry(spec, Digest(bytes.fromhex(spec.adapter)), salt=bytes.fromhex(spec.salt))
    spool = Spool(folder / "spool", blobs)
    spool.folder.mkdir()
    return Aggregator(spec, digest, domain, registry, blobs, spool, folder / "adapters")


def loss_of(found: Figures) -> float | None:
    """The loss that counts: on the shared examples if there are some, else on those that were held out."""
    return next((float(found[name]["loss"]) for name in ("shared", "held_out") if name in found), None)
