# SPDX-License-Identifier: Apache-2.0
"""Mode `stack`: the adapter before, and beside it what each node trained, B scaled by its share of the weights.

Nothing is added up, so the result needs no order; it has one, that of the nodes' addresses, which stand in the updates
themselves. Updates of weight 0 leave no trace. Walked piece by piece in file order with buffers that are reused: A grows
by rows, which is one node's update after the other; B grows by columns, so its rows are put together from all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.adapter_blob import Form, form_at, form_of
from flb.admission import BlockReader, Layout, layout_of, rank_of_size
from flb.codec.microscaling import GROUP
from flb.delta import Float32, add_step, exact_in_float64, mean, round_to_ring
from flb.errors import BadContainer, CorruptStore, Refused
from flb.lora import adapter_zero
from flb.lora.shape import A
from flb.lora.stack import kept_rank
from flb.moments import constants_of
from flb.server_optimizer import OPTIMIZERS, apply
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.moments import RunOptimizer
from flb_aggregator.reweigh import Counted
from flb_aggregator.ring_blocks import altered
from flb_aggregator.spans import PIECE


@dataclass(frozen=True, slots=True)
class Update:
    """One node's update: the number of its file, its weight, its rank, its form."""

    file: int
    weight: int
    rank: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the next adapter: of A, elements `start` to `start + count` of one source's rows, `update` or the
    adapter before; of B, so many whole rows."""

    tensor: int
    start: int
    count: int
    update: Update | None = None


def combine(
    spec: RunSpec,
    step: Step,
    counted: Counted,
    files: Files,
    write: Write,
    threads: int,
    to: Down | None,
    optimizer: RunOptimizer,
) -> None:
    """Write the adapter: number 0 of `files` is the base, then come the updates of `counted`.

    Raises Refused where the rank would pass the run's bound, for an optimizer with moments and
    encoded steps; CorruptStore for a blob that is not what it was.
    """
    if to is not None:
        raise Refused("an encoded step cannot make an adapter of a larger rank", "set run.down to f32 in mode stack")
    if optimizer.optimizer.moments:
        raise Refused(
            f"server optimizer {spec.server_optimizer.name} keeps moments, and mode stack begins anew in every step",
            "set run.server_optimizer.name to sgd",
        )
    base = form_of_base(spec, files)
    updates = updates_of(spec, step, counted.weights, files)
    kept = kept_rank(base.rank, step)
    rank = kept + sum(update.rank for update in updates)
    if rank > spec.lora.max_rank:
        raise Refused(
            f"step {step} would grow the adapter to rank {rank}, lora.max_rank is {spec.lora.max_rank}",
            "make the run with a larger lora.max_rank",
        )
    stacker = Stacker(spec, step, files, base, kept, updates, counted.denominator)
    write(stacker.form.header)
    in_order(list(stacker.pieces()), stacker.worker, write, threads)


def form_of_base(spec: RunSpec, files: Files) -> Form:
    """The form of file number 0. Raises CorruptStore unless it is an adapter of the run."""
    try:
        with files.paths[0].open("rb") as base:
            return form_of(spec, base.read)
    except (OSError, BadContainer) as error:
        raise CorruptStore(
            f"{files.paths[0]} is not an adapter of this run", "restore the blob from another copy"
        ) from error


def updates_of(spec: RunSpec, step: Step, weights: Sequence[int], files: Files) -> list[Update]:
    """The updates that count, in order of node address."""
    layouts = {rank: layout_of(spec, step, rank) for rank in spec.lora.node_ranks}
    found = []
    for file, weight in enumerate(weights, start=1):
        if weight:
            path = files.paths[file]
            try:
                rank = rank_of_size(spec, step, path.stat().st_size)
                with path.open("rb") as update:
                    length = container.header_length(update.read(container.LENGTH_BYTES), layouts[rank].header_size)
                    node = container.decode_header(update.read(length)).metadata.get("node", "")
            except (OSError, BadContainer) as error:
                raise altered(files, file) from error
            found.append((node, Update(file, weight, rank, layouts[rank])))
    return [update for _, update in sorted(found, key=lambda pair: pair[0])]


class Fresh:
    """Where all nodes began with A, one tensor at a time: drawn once for all of them, at the largest of their ranks; one
    for each thread."""

    def __init__(self, seed: int, step: Step, rank: int) -> None:
        self._seed, self._step, self._rank = seed, step, rank
        self._name, self._drawn = "", dict[int, Float32]()

    def values(self, tensor: TensorSpec, start: int) -> Float32:
        """Elements `start` to at most `start + PIECE`."""
        if tensor.name != self._name:
            self._name, self._drawn = tensor.name, {}
        if start not in self._drawn:
            at = TensorSpec(tensor.name, (self._rank, tensor.shape[1]))
            count = min(PIECE, at.size - start)
            self._drawn[start] = adapter_zero.values(at, self._seed, self._step, start, count)
        return self._drawn[start]


class Stacker:
    """What the threads of one `combine` share, all of it constant."""

    def __init__(
        self, spec: RunSpec, step: Step, files: Files, base: Form, kept: int, updates: list[Update], denominator: int
    ) -> None:
        self.spec, self.step, self.files, self.base, self.kept = spec, step, files, base, kept
        self.updates, self.denominator = updates, denominator
        self.constants = constants_of(spec, 0.0)
        self.rank = kept + sum(update.rank for update in updates)
        self.form = form_at(spec, self.rank)
        self.rows = max(1, PIECE // self.rank // GROUP) * GROUP
        """Rows of B at a time: whole groups of the codecs, whatever a node's rank."""
        self.starts = [0] * len(base.tensors)
        for number, tensor in enumerate(base.tensors[:-1]):
            self.starts[number + 1] = self.starts[number] + tensor.size

    def pieces(self) -> Iterator[Piece]:
        """The next adapter, in file order."""
        for number, tensor in enumerate(self.form.tensors):
            if not tensor.name.endswith(A):
                for row in range(0, tensor.shape[0], self.rows):
                    yield Piece(number, row, min(self.rows, tensor.shape[0] - row))
                continue
            sources = [(self.kept, None), *((update.rank, update) for update in self.updates)]
            for rank, update in sources:
                size = rank * tensor.shape[1]
                for start in range(0, size, PIECE):
                    yield Piece(number, start, min(PIECE, size - start), update)

    def worker(self) -> Callable[[Piece], memoryview]:
        """A function that makes one piece, with buffers of its own; the bytes are valid until its next call."""
        size = max(PIECE, self.rows * self.rank)
        made, held = np.empty(size, dtype="<f4"), np.empty(self.rows * self.base.rank, dtype="<f4")
        readers = {update.rank: BlockReader(update.layout, size) for update in self.updates}
        fresh = Fresh(self.spec.training.seed, self.step, max(readers))

        def make(piece: Piece) -> memoryview:
            tensor = self.form.tensors[piece.tensor]
            if not tensor.name.endswith(A):
                out = made[: piece.count * self.rank].reshape(piece.count, self.rank)
                self.make_rows(piece, out, held, readers)
                return out.data.cast("B")
            flat = made[: piece.count]
            if piece.update is None:
                self.read_base(piece.tensor, piece.start, flat)
            else:
                update = piece.update
                moved = self.ring_values(readers[update.rank], update, piece.tensor, piece.start, piece.count)
                began = fresh.values(tensor, piece.start)[: piece.count]
                flat[:] = add_step(began, moved.astype(np.float64) * 2.0**-self.spec.ring.fraction_bits)
            return flat.data.cast("B")

        return make

    def make_rows(self, piece: Piece, out: Float32, held: Float32, readers: dict[int, BlockReader]) -> None:
        """Rows of B: those of the adapter before, then each node's columns times its share."""
        if self.kept:
            before = held[: piece.count * self.base.rank]
            self.read_base(piece.tensor, piece.start * self.base.rank, before)
            out[:, : self.kept] = before.reshape(piece.count, self.base.rank)
        column = self.kept
        for update in self.updates:
            first, count = piece.start * update.rank, piece.count * update.rank
            moved = self.ring_values(readers[update.rank], update, piece.tensor, first, count)
            columns = self.shared(moved, update.weight).reshape(piece.count, update.rank)
            out[:, column : column + update.rank] = columns
            column += update.rank

    def shared(self, moved: Float32, weight: int) -> NDArray[np.float64]:
        """w·q / D · 2^-F times the learning rate, in the order of docs/arithmetic.md 1."""
        ring = self.spec.ring
        kind: type[Any] = np.float64 if exact_in_float64(weight, ring.value_bound, ring.fraction_bits) else np.int64
        weighted = moved.astype(kind)
        weighted *= kind(weight)
        averaged = mean(weighted, self.denominator, ring.fraction_bits)
        return apply(OPTIMIZERS["sgd"], averaged, np.empty((averaged.size, 0)), self.constants)

    def ring_values(self, reader: BlockReader, update: Update, tensor: int, start: int, count: int) -> Float32:
        """Elements of one update's tensor as integers in float32: the reader's scratch."""
        try:
            values = reader.values(self.files.source(update.file), tensor, start, count)
        except BadContainer as error:
            raise altered(self.files, update.file) from error
        round_to_ring(values, self.spec.ring.fraction_bits, out=values)
        return values

    def read_base(self, tensor: int, start: int, out: Float32) -> None:
        """Elements of a tensor of the adapter before, from `start` on."""
        offset = len(self.base.header) + 4 * (self.starts[tensor] + start)
        self.files.fill(0, offset, out.data.cast("B"))
