# SPDX-License-Identifier: Apache-2.0
"""LoRA modes compared where data differ: four nodes with a kind of text each, a small model over bytes, 15 rounds.

    python -m bench.lora_modes [--quick] [--modes A,B] [--rates X,Y] [--seeds N,M] [--out FILE] [--also FILE] [--json]

Every run is a simulated one (`flb_cli.simulate_engine`): updates are sealed by the node's pipeline, admitted, combined
from files by the aggregator's. Only training is this bench's own: 10 steps of AdamW on rows of 128 bytes. Losses are
held-out nats a byte, the mean over the four kinds. Results are kept in --out after each run, and a run that is there is
not repeated; two processes on two cores take a seed and a file each, and a third call with `--also` prints the table.
`--quick` is 2 rounds of one seed at one rate. Run it with OMP_NUM_THREADS=1: bits depend on the threads.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench import byte_corpus, byte_model
from bench.byte_corpus import Text
from flb import planner
from flb import spec as specs
from flb.spec import RunSpec
from flb.store import BlobStore, write_atomic
from flb.types import Step
from flb_aggregator.publish import make_adapter_zero
from flb_cli import simulate_node
from flb_cli.simulate_engine import Serial
from flb_cli.simulate_run import open_aggregator
from flb_node import pipeline
from flb_node.pipeline import Tensors, Train

RANK, ALPHA, ROUNDS, STEPS, BATCH = 4, 8, 15, 10, 8
PRETRAINED, QUICK = 300, 20
"""Steps of the base model."""
EQUAL_RATE, RATES, SEEDS = 3e-3, (1e-3, 3e-3, 1e-2), (0, 1)
MODES: dict[str, dict[str, Any]] = {
    "factors": {"mode": "factors"},
    "alternate": {"mode": "alternate"},
    "freeze_a": {"mode": "freeze_a"},
    "product": {"mode": "product"},
    "stack": {"mode": "stack"},
    "factors+residual": {"mode": "factors", "residual_rank": 16},
}
"""What of the spec's `lora` tells them apart; `stack` gets the largest rank that it may grow to besides."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a mode at a learning rate under a seed."""

    mode: str
    rate: float
    seed: int
    rounds: int

    @property
    def name(self) -> str:
        """The key of its result."""
        return f"{self.mode} {self.rate:g} {self.seed} {self.rounds}"


def spec_of(run: Run, blobs: BlobStore, base: str) -> RunSpec:
    """The spec of a run, by the planner; adapter 0 is written into `blobs`."""
    extra = {"max_rank": RANK * 4 * run.rounds} if run.mode == "stack" else {}
    tensors = byte_model.adapter_tensors(RANK)
    return planner.make_spec(
        base=specs.BaseSpec("bytes", base),
        lora=specs.LoraSpec(
            **MODES[run.mode], **extra, r=RANK, alpha=ALPHA, dropout=0.0, target_modules=tuple(sorted(byte_model.SHAPES))
        ),
        tensors=tensors,
        adapter=make_adapter_zero(tensors, run.seed, blobs).hex(),
        training=specs.TrainingSpec(STEPS, BATCH, run.rate, byte_model.LENGTH, run.seed),
        rounds=specs.RoundSpec(run.rounds, 3600, 3600, 2, 1.0, 0, 4),
        aggregation=specs.AggregationSpec(),
        server_optimizer=specs.ServerOptimizerSpec("sgd", 1.0),
        scoring=specs.ScoringSpec("capped_examples", "0"),
        codec="f32",
        down="f32",
        audit="members",
        value_bound=4,
        weight_cap=65536,
        norm=1024,
        open_membership=False,
        salt=f"{run.seed:064x}",
    )  # fmt: skip


def trainer(base: byte_model.Weights, text: Text, spec: RunSpec) -> Train:
    """A node's training on its kind of text."""

    def train(adapter: Tensors, names: frozenset[str], seed: int, step: Step) -> Tensors:
        return byte_model.train(
            base, adapter, names, text.own, scale=spec.lora.scale, steps=STEPS, batch=BATCH,
            learning_rate=spec.training.learning_rate, seed=seed,
        )  # fmt: skip

    return train


def measure(run: Run, base: byte_model.Weights, corpus: dict[str, Text], folder: Path) -> dict[str, Any]:
    """One whole run in `folder`: losses after every fifth round, and what it cost."""
    started = time.perf_counter()
    spec = spec_of(run, BlobStore(folder / "blobs"), byte_model.digest(base))
    aggregator = open_aggregator(spec, folder)
    nodes = [
        simulate_node.make(
            number, spec.salt, [block.tobytes() for block in text.own], folder / "nodes" / kind, trainer(base, text, spec)
        )
        for number, (kind, text) in enumerate(corpus.items(), start=1)
    ]  # fmt: skip
    held_out = [text.held_out for text in corpus.values()]
    losses: dict[str, float] = {}

    def on_round(line: dict[str, Any]) -> None:
        if line["round"] % 5 == 0 or line["round"] == run.rounds:
            adapter = pipeline.load_adapter(spec, aggregator.blobs, aggregator.registry.view().adapter)
            losses[str(line["round"])] = byte_model.measure(base, adapter, held_out, spec.lora.scale)

    engine = Serial(aggregator, nodes, BlobStore(folder / "nodes" / "blobs"), on_round=on_round)
    engine.run()
    return {
        "mode": run.mode, "learning_rate": run.rate, "seed": run.seed, "rounds": run.rounds, "losses": losses,
        "wall_s": round(time.perf_counter() - started, 1), "train_s": round(engine.train_seconds, 1),
        "aggregate_s": round(aggregator.combine_seconds, 2), "rejected": len(engine.rejected), "gaps": [line.get("gap") for line in engine.lines],
        "adapter_bytes": aggregator.blobs.path(aggregator.registry.view().adapter).stat().st_size,
        "adapter_sha256": aggregator.registry.view().adapter.hex(),
    }  # fmt: skip


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line a mode: the mean over seeds of the last loss at the equal rate and at the mode's best one, with that rate.

    Rates that have fewer seeds than another of the mode are left out: their means could not be compared.
    """
    lines = []
    for mode in MODES:
        by_rate: dict[float, list[float]] = {}
        for run in runs:
            if run["mode"] == mode:
                by_rate.setdefault(run["learning_rate"], []).append(run["losses"][str(run["rounds"])])
        if not by_rate:
            continue
        seeds = max(map(len, by_rate.values()))
        means = {rate: sum(losses) / seeds for rate, losses in by_rate.items() if len(losses) == seeds}
        best = min(means, key=lambda rate: means[rate])
        own = [run for run in runs if run["mode"] == mode]
        lines.append({
            "mode": mode, "equal_rate": means.get(EQUAL_RATE), "best_rate": best, "best": means[best],
            "seeds": seeds, "adapter_bytes": own[0]["adapter_bytes"],
            "s_per_run": round(sum(run["wall_s"] for run in own) / len(own), 1),
        })  # fmt: skip
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Run what is asked for and not there yet, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds, seed 0, one learning rate")
    parser.add_argument("--modes", default=",".join(MODES), help="some of the modes")
    parser.add_argument("--rates", help="learning rates (default: 3e-3 first, then 1e-3 and 1e-2)")
    parser.add_argument("--seeds", help="seeds (default: 0,1)")
    parser.add_argument(
        "--out", type=Path, default=Path("bench/results/lora_modes.json"), help="results are kept there"
    )
    parser.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="results of another process; they count too",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table in Markdown")
    options = parser.parse_args(arguments)
    rates = (
        [float(rate) for rate in options.rates.split(",")]
        if options.rates
        else sorted(RATES, key=lambda r: r != EQUAL_RATE)
    )
    seeds = [int(seed) for seed in options.seeds.split(",")] if options.seeds else list(SEEDS)
    rounds = 2 if options.quick else ROUNDS
    if options.quick:
        rates, seeds = [EQUAL_RATE], seeds[:1]
    torch.set_num_threads(1)
    corpus = byte_corpus.read()
    base = byte_model.pretrained([text.public for text in corpus.values()], QUICK if options.quick else PRETRAINED)
    untuned = byte_model.measure(base, {}, [text.held_out for text in corpus.values()], 0.0)
    done: dict[str, dict[str, Any]] = {}
    for path in [] if options.quick else [*options.also, options.out]:
        if path.exists() and (kept := json.loads(path.read_text()))["base"] == byte_model.digest(base):
            done |= kept["runs"]
    wanted = [Run(mode, rate, seed, rounds) for rate in rates for seed in seeds for mode in options.modes.split(",")]
    for run in wanted:
        if run.name not in done:
            with tempfile.TemporaryDirectory() as folder:
                done[run.name] = measure(run, base, corpus, Path(folder))
            if not options.quick:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                kept = {"base": byte_model.digest(base), "base_loss": untuned, "runs": done}
                write_atomic(options.out, json.dumps(kept, indent=1).encode() + b"\n")
    lines = table(list(done.values()))
    if options.json:
        print(json.dumps({
            "base": byte_model.digest(base), "base_loss": untuned, "machine": platform.machine(), "torch": torch.__version__,
            "table": lines, "runs": list(done.values()),
        }))  # fmt: skip
        return
    print(
        f"Base {untuned:.4f}.\n\n| mode | at {EQUAL_RATE:g} | best | at rate | seeds | last adapter | s a run |\n|{'---|' * 7}"
    )
    for line in lines:
        equal = f"{line['equal_rate']:.4f}" if line["equal_rate"] is not None else ""
        print(f"| `{line['mode']}` | {equal} | {line['best']:.4f} | {line['best_rate']:g} | {line['seeds']} "
              f"| {line['adapter_bytes'] / 1024:.0f} KiB | {line['s_per_run']:.0f} |")  # fmt: skip


if __name__ == "__main__":
    main()
