# SPDX-License-Identifier: Apache-2.0
"""What a step leaves besides the adapter where it travels encoded: the step blob and the blob with the remainder.

Both are written in the adapter's own pass, span by span. Of the step blob the integers go out at once; the scales of a
tensor wait for their place in the file, one byte for 32 elements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flb import down
from flb.admission import Layout
from flb.codec.microscaling import GROUP
from flb.delta import Float64
from flb.spec import RunSpec
from flb.types import Address, Digest, Step
from flb_aggregator.spans import PIECE, SPAN, Made, Span

Write = Callable[[bytes | memoryview], None]
ReadState = Callable[[Span, memoryview], None]
"""Fill the bytes with what the step before left of a span."""


@dataclass(frozen=True, slots=True)
class Down:
    """What a step needs besides its updates where it travels encoded, and where its two blobs go."""

    run: Address
    base: Digest
    state: Path | None
    """The remainder that the step before left; None before the first step."""
    write_step: Write
    write_state: Write


class Encoder:
    """Encodes the pieces of one span after the other, in buffers that it reuses; one for each thread."""

    def __init__(self, run: Address, step: Step, layout: Layout, read_state: ReadState) -> None:
        self._run, self._step, self._read_state = run, step, read_state
        self._remainder = np.empty(SPAN, dtype="<f4")
        self._whole, self._scales = np.empty(SPAN, dtype=np.uint8), np.empty(SPAN // GROUP, dtype=np.uint8)
        self._span, self._sent = Span(layout.tensors[0], 0, 0, 0), False
        self._positions: dict[str, int] = {}
        position = 0
        for tensor in layout.tensors:
            self._positions[tensor.name] = position
            position += tensor.size

    def begin(self, span: Span) -> None:
        """Take what the step before left of a span."""
        self._span, self._sent = span, span.tensor.name in self._positions
        self._read_state(span, self._remainder[: span.count].data.cast("B"))
        if self._sent:
            self._draw = down.draw_from(self._run, self._step, self._positions[span.tensor.name] + span.start)

    def encode(self, start: int, step: Float64) -> Float64:
        """The values that the next piece of the step is encoded to; `start` counts from the span's first element."""
        remainder = self._remainder[start : start + step.size]
        encoded = down.encode(step, remainder, self._draw)
        remainder[:] = encoded.remainder
        whole, scales = (np.frombuffer(part, dtype=np.uint8) for part in encoded.parts)
        self._whole[start : start + step.size] = whole
        self._scales[start // GROUP :][: scales.size] = scales
        return encoded.values.astype(np.float64)

    def made(self, adapter: memoryview) -> Made:
        """All of the span."""
        remainder = self._remainder[: self._span.count].data.cast("B")
        if not self._sent:
            return Made(self._span, adapter, remainder)
        count = self._span.count
        return Made(self._span, adapter, remainder, self._whole[:count].data, self._scales[: -(-count // GROUP)].data)


assert PIECE % GROUP == 0, "no piece ends within a group"


class StepWriter:
    """Writes both blobs from the results of spans, which come in the adapter's order."""

    def __init__(self, spec: RunSpec, step: Step, to: Down) -> None:
        self._to = to
        layout = down.step_layout(spec, step, to.base)
        self._due = list(reversed(layout.entries))
        self._held: dict[str, bytearray] = {}
        to.write_step(down.step_header(spec, step, to.base))
        to.write_state(down.state_header(spec, step))

    def take(self, made: Made) -> None:
        """The next span. A tensor that the step does not send has its remainder alone."""
        self._to.write_state(made.remainder)
        if not made.whole:
            return
        self._to.write_step(made.whole)
        held = self._held.setdefault(f"{made.span.tensor.name}.scale", bytearray())
        held += made.scales
        if made.span.last:
            self._due.pop()  # the tensor's integers, now complete
            while self._due and self._due[-1].name in self._held:
                self._to.write_step(memoryview(self._held.pop(self._due.pop().name)))
