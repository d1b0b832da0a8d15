# SPDX-License-Identifier: Apache-2.0
"""The server optimizer in a pass over the adapter: moments come from the blob of the step before, span by span, and go
into that of this step. An optimizer without moments reads and writes nothing.

Memory holds the moments of one span for each thread, whatever the adapter's size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flb import moments
from flb.delta import Float64
from flb.errors import BadContainer, CorruptStore, Fatal
from flb.server_optimizer import apply
from flb.server_optimizer.tau import automatic
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.encoded_step import Write
from flb_aggregator.files import Files
from flb_aggregator.spans import NOTHING, SPAN, Span

FirstMean = Callable[[], tuple[int, int]]
"""Σ r² of the whole mean (`flb.server_optimizer.tau.square_sum`), and the number of its elements."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Where the moments that the step before left are, None before the first step, and where those of this step go."""

    state: Path | None
    write: Write


class RunOptimizer:
    """The server optimizer of one step, as the threads of a `combine` share it."""

    def __init__(self, spec: RunSpec, step: Step, to: Moments | None, files: Files) -> None:
        self.spec, self.step, self.to, self._files = spec, step, to, files
        self.optimizer = moments.optimizer_of(spec)
        if self.optimizer.moments and to is None:
            raise Fatal("a step was combined without a place for the optimizer's moments", "report this as a defect")
        self._start, self.tau = 0, spec.server_optimizer.tau if self.optimizer.adaptive else 0.0
        if self.optimizer.moments and files.paths:
            self._read_header(files.paths[0])
        elif self.optimizer.moments and step > 1:
            raise CorruptStore(f"step {step} lacks the moments that the step before left", "restore their blob")

    def _read_header(self, path: Path) -> None:
        before = Step(self.step - 1)
        self._start = moments.header_size(self.spec, before)
        held = bytearray(self._start)
        self._files.fill(0, 0, memoryview(held))
        try:
            self.tau = moments.read_header(bytes(held), self.spec, before)
        except BadContainer as error:
            raise CorruptStore(
                f"{path} is not what the step before left", "restore the blob from another copy"
            ) from error

    def begin(self, first_mean: FirstMean) -> None:
        """Before the first span: τ is settled, and the header written. `first_mean` is called where the spec leaves τ to
        the run's first mean, in its first step alone: it costs a pass of its own."""
        if self.optimizer.adaptive and self.tau == 0:
            settings, ring = self.spec.server_optimizer, self.spec.ring
            squares, count = first_mean()
            self.tau = automatic(squares, count, settings.tau_scale, ring.norm_bound, ring.fraction_bits)
        if self.to is not None and self.optimizer.moments:
            self.to.write(moments.header(self.spec, self.step, self.tau))

    def worker(self) -> "SpanOptimizer":
        """The optimizer of one thread."""
        return SpanOptimizer(self)

    def read(self, span: Span, held: Float64) -> None:
        """The moments of a span before this step."""
        if self._files.paths:
            offset = self._start + span.position * moments.element_size(self.spec)
            self._files.fill(0, offset, held.data.cast("B"))
        else:
            moments.start(self.spec, self.tau, held)

    def write(self, held: memoryview) -> None:
        """The moments of the next span after this step, in file order."""
        if self.to is not None and held:
            self.to.write(held)


class SpanOptimizer:
    """Steps the pieces of one span after the other, with moments in a buffer that it reuses; one for each thread."""

    def __init__(self, run: RunOptimizer) -> None:
        self._run, self._optimizer = run, run.optimizer
        self._constants = moments.constants_of(run.spec, run.tau)
        self._moments = np.empty((SPAN, self._optimizer.moments), dtype="<f8")
        self._count = 0

    def begin(self, span: Span) -> None:
        """Take the moments of a span."""
        self._count = span.count
        if self._optimizer.moments:
            self._run.read(span, self._moments[: span.count])

    def step(self, start: int, mean: Float64) -> Float64:
        """What the next piece of the adapter moves by; `start` counts from the span's first element. What is not stepped
        keeps its moments."""
        return apply(self._optimizer, mean, self._moments[start : start + mean.size], self._constants)

    def made(self) -> memoryview:
        """The span's moments as they go into the blob; valid until the next `begin`."""
        return self._moments[: self._count].data.cast("B") if self._optimizer.moments else NOTHING


@contextmanager
def optimizing(spec: RunSpec, step: Step, to: Moments | None) -> Iterator[RunOptimizer]:
    """The optimizer of a step, with the blob of the step before open. Raises CorruptStore where that is not one."""
    with Files([to.state] if to is not None and to.state is not None else []) as files:
        yield RunOptimizer(spec, step, to, files)
