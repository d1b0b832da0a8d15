# SPDX-License-Identifier: Apache-2.0
"""Measures each round's adapter on held-out examples while the node waits, on this device and for its user alone.

metrics.jsonl has a line for each adapter, best.json names the one with the lowest loss, and the folder best/ holds it,
as peft reads it. Nothing of this is sent. What decides is the loss on the examples that all nodes share, where the
operator published some, else the loss on the node's own.
"""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flb.adapter_blob import form_of
from flb.config import ClientConfig
from flb.delta import Float32
from flb.errors import DatasetError, FLBError
from flb.lora.peft_config import peft_config
from flb.spec import RunSpec
from flb.store import BlobStore, digest_of_file, write_atomic
from flb.types import Digest, Step
from flb_node import data, pipeline
from flb_node.data import Example

Figures = dict[str, Any]
"""loss (nats a token), perplexity, accuracy (0 to 1), tokens, of one set of examples."""
Measure = Callable[[Mapping[str, Float32]], Iterator[Figures | None]]
"""An adapter to its line, in pieces: None after each, at last a set's name to its figures and the seconds it took.
Between two pieces the model may train."""
MOST_WAITING = 4
"""Adapters that wait to be measured; a node that is never idle measures only some."""
Report = Callable[[Mapping[str, float], int], None]
"""Figures by name, and the step at which they hold."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The examples that are measured: the node's own and the operator's; either may be empty. `shared_digest` is the
    SHA-256 of the operator's file, so that nodes can see that they measure the same."""

    own: tuple[Example, ...] = ()
    shared: tuple[Example, ...] = ()
    shared_digest: str = ""


def split(examples: tuple[Example, ...], share: float) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """(to train, held out): the same after each start, and equal examples on the same side.

    The held-out ones are those with the lowest hash, in order of it. Raises DatasetError if all are equal.
    """
    hashes = [hashlib.sha256(b"flb held out" + data.record_bytes(example)).digest() for example in examples]
    wanted = max(1, round(share * len(examples)))
    limit = min(sorted(hashes)[wanted - 1], sorted(set(hashes))[-2:][0])  # one different example is left at least
    order = sorted(range(len(examples)), key=lambda index: hashes[index])
    held = tuple(examples[index] for index in order if hashes[index] <= limit)
    train = tuple(example for example, digest in zip(examples, hashes, strict=True) if digest > limit)
    if not train:
        raise DatasetError(
            f"client.held_out is {share:g}, and the {len(examples)} examples are all the same",
            "add different ones, or name a file of held-out examples",
        )
    return train, held


def read(
    client: ClientConfig, examples: tuple[Example, ...], columns: Mapping[str, str] | None = None
) -> tuple[tuple[Example, ...], HeldOut]:
    """The examples to train, and what is held out; `columns` are the dataset's, which the node's own held-out file has
    too. Raises DatasetError."""
    own: tuple[Example, ...] = ()
    if isinstance(client.held_out, float):
        examples, own = split(examples, client.held_out)
    elif client.held_out is not None:
        own = data.read(data.Source(client.held_out, columns=columns or {}))
        _refuse_trained(own, examples, f"client.held_out ({client.held_out})", "one of them")
    shared: tuple[Example, ...] = ()
    digest = ""
    if client.shared_held_out is not None:
        shared = data.read(client.shared_held_out)
        _refuse_trained(shared, examples, f"client.shared_held_out ({client.shared_held_out})", "the dataset")
        digest = digest_of_file(client.shared_held_out).hex() if client.shared_held_out.is_file() else ""
    most = client.eval_examples
    return examples, HeldOut(own[:most], shared[:most], digest)


def _refuse_trained(held: Sequence[Example], trained: Sequence[Example], what: str, where: str) -> None:
    known = {data.record_bytes(example) for example in trained}
    if any(data.record_bytes(example) in known for example in held):
        raise DatasetError(
            f"an example of {what} is in the dataset too", f"remove it from {where}: its loss would say nothing"
        )


@dataclass(frozen=True, slots=True)
class Job:
    """An adapter that is being measured, or waits for it."""

    spec: RunSpec
    step: Step
    adapter: Digest
    pieces: Iterator[Figures | None]


@dataclass(frozen=True, slots=True)
class NoEvaluation:
    """Measures nothing."""

    def add(self, spec: RunSpec, step: Step, adapter: Digest) -> None:
        """Nothing."""

    def advance(self, busy: Callable[[], bool], seconds: float) -> bool:
        """Nothing waits."""
        return False

    def waiting(self) -> set[Digest]:
        """None."""
        return set()

    def close(self) -> None:
        """Nothing."""


@dataclass(slots=True)
class Evaluation:
    """The record of all measurements in `folder`. `measure` is set once the model is loaded; without it nothing is
    measured, as for a node that comes after the end."""

    folder: Path
    blobs: BlobStore
    examples: HeldOut
    log: Callable[[str], None]
    show: Callable[[Figures], None]
    report: Report | None = None
    measure: Measure | None = None
    ended: Callable[[], None] = lambda: None
    """Called by `close`."""
    run: str = ""
    """The run's contract: the work folder may hold lines of the run before."""
    _waiting: list["Job"] = field(default_factory=list)
    _measured: set[str] = field(default_factory=set)
    _best: tuple[float, int] = (math.inf, 0)

    def __post_init__(self) -> None:
        for line in _lines(self.folder / "metrics.jsonl"):
            if line.get("run", self.run) != self.run:
                continue
            self._measured.add(str(line["adapter"]))
            self._best = min(self._best, (_deciding(line), int(line["step"])))

    def add(self, spec: RunSpec, step: Step, adapter: Digest) -> None:
        """The adapter that `step` made is to be measured, unless that was done before."""
        if self.measure is None or adapter.hex() in self._measured or adapter in self.waiting():
            return
        self._waiting.append(Job(spec, step, adapter, self._pieces(self.measure, spec, adapter)))
        if len(self._waiting) > MOST_WAITING:
            dropped = self._waiting.pop(1)  # the first may be half measured
            self.log(f"step {dropped.step}: the adapter is not measured, this node has no time between rounds")

    def _pieces(self, measure: Measure, spec: RunSpec, adapter: Digest) -> Iterator[Figures | None]:
        """`measure`'s, of an adapter that is read for the first of them: until then it takes no memory."""
        yield from measure(pipeline.load_adapter(spec, self.blobs, adapter))

    def waiting(self) -> set[Digest]:
        """The adapters that are still to be measured: their blobs are needed."""
        return {job.adapter for job in self._waiting}

    def advance(self, busy: Callable[[], bool], seconds: float) -> bool:
        """Measure until nothing waits, or `busy`, or for so many seconds, one piece at least; whether some still wait.

        An error is told and ends nothing.
        """
        start = time.monotonic()
        while self._waiting:
            job = self._waiting[0]
            try:
                figures = next(job.pieces)
                if figures is not None:
                    self.note(job.spec, job.step, job.adapter, figures)
            except FLBError as error:
                self.log(f"step {job.step}: the adapter was not measured: {error}")
                self._waiting.pop(0)
                continue
            if figures is not None:
                self._waiting.pop(0)
            if busy() or time.monotonic() - start > seconds:
                break
        return bool(self._waiting)

    def close(self) -> None:
        """The process ends."""
        self.ended()

    def note(self, spec: RunSpec, step: Step, adapter: Digest, figures: Figures) -> None:
        """Tell and keep what was measured. Raises what `keep` raises."""
        line = {"run": self.run, "step": step, "adapter": adapter.hex(), **figures}
        for name, what in _sets(figures).items():
            self.log(
                f"step {step}: {name.replace('_', ' ')} loss {what['loss']:.4f}, accuracy {what['accuracy']:.3f}, "
                f"perplexity {what['perplexity']:.4g} over {what['tokens']} tokens"
            )
        if self.report is not None:
            self.report(dict(_plain(figures)), step * spec.training.local_steps)
        if (found := (_deciding(line), int(step))) < self._best and math.isfinite(found[0]):
            self.keep(spec, step, adapter, found[0])
            self._best = found
        _append(self.folder / "metrics.jsonl", line)  # last: what is noted is done
        self._measured.add(adapter.hex())
        if math.isfinite(found[0]):
            loss, best = self._best
            self.show({"held_out": {"step": step, "loss": found[0], "best_step": best, "best_loss": loss}})

    def keep(self, spec: RunSpec, step: Step, adapter: Digest, loss: float) -> None:
        """Put the best adapter so far where retention does not reach it. Raises CorruptStore if it was altered since."""
        content = self.blobs.get(adapter)
        best = self.folder / "best"
        best.mkdir(exist_ok=True)
        rank = form_of(spec, io.BytesIO(content).read).rank
        write_atomic(best / "adapter_config.json", peft_config(spec.base, spec.lora, rank))
        write_atomic(best / "adapter_model.safetensors", content)
        note = {"run": self.run, "step": step, "adapter": adapter.hex(), "loss": loss}
        write_atomic(self.folder / "best.json", json.dumps(note).encode() + b"\n")


def _sets(line: Mapping[str, Any]) -> dict[str, Figures]:
    return {name: line[name] for name in ("shared", "held_out") if isinstance(line.get(name), dict)}


def _plain(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float]]:
    """Every figure under its full name, as reports take them."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _plain(value, f"{above}{name}/")
        elif isinstance(value, int | float) and above:
            yield above + name, float(value)


def _deciding(line: Mapping[str, Any]) -> float:
    """The loss that decides which adapter is best: infinite where there is none."""
    return next((float(what["loss"]) for what in _sets(line).values()), math.inf)


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """Write a line; if a crash cut the last one short, leave that one alone."""
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
        torn = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")


def _lines(path: Path) -> Sequence[Mapping[str, Any]]:
    """The lines of metrics.jsonl; one that a crash cut short counts as not written."""
    found = []
    if path.exists():
        for text in path.read_bytes().splitlines():
            try:
                line = json.loads(text)
                _deciding(line), int(line["step"]), str(line["adapter"])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                continue
            found.append(line)
    return found
