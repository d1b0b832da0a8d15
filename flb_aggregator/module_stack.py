# SPDX-License-Identifier: Apache-2.0
"""The factors of one module, of the adapter and of every update side by side, as product space wants them.

A module's two factors stand next to each other in every file. A thread reads them into one buffer that it reuses:
(d + k)·(r + Σ rᵢ) float32 for the largest module, which is all that grows with the cohort.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from flb.adapter_blob import form_of
from flb.admission import BlockReader, Layout, layout_of
from flb.delta import Float32, Float64, round_to_ring
from flb.errors import BadContainer, CorruptStore, Refused
from flb.lora import adapter_zero, mean_product
from flb.lora.shape import A, B
from flb.spec import RunSpec
from flb.types import Step, TensorSpec
from flb_aggregator.files import Files
from flb_aggregator.reweigh import Counted
from flb_aggregator.ring_blocks import altered
from flb_aggregator.spans import PIECE

RESTORE = "restore the blob from another copy"


@dataclass(frozen=True, slots=True)
class Module:
    """One adapted layer: its factors at the run's rank, and the number of A among the run's tensors; B follows."""

    a: TensorSpec
    b: TensorSpec
    number: int

    @property
    def name(self) -> str:
        """Its path, as the tensors have it."""
        return self.a.name.removesuffix(A)

    @property
    def extent(self) -> int:
        """d + k."""
        return self.b.shape[0] + self.a.shape[1]


def modules(tensors: Sequence[TensorSpec]) -> list[Module]:
    """The adapter's modules in file order. Raises Refused where a factor has no other."""
    if not paired(tensors):
        raise Refused(
            "the tensors of the run spec are not pairs of LoRA factors", "make the spec with flb chain deploy"
        )
    return [Module(a, b, 2 * number) for number, (a, b) in enumerate(zip(tensors[::2], tensors[1::2], strict=True))]


def paired(tensors: Sequence[TensorSpec]) -> bool:
    """Whether every A stands before its B, and nothing else is there."""
    pairs = zip(tensors[::2], tensors[1::2], strict=False)
    return len(tensors) % 2 == 0 and all(a.name.endswith(A) and b.name == a.name.removesuffix(A) + B for a, b in pairs)


@dataclass(frozen=True, slots=True)
class Update:
    """One update that counts: the number of its file, its rank, its form."""

    file: int
    rank: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class Stack:
    """One module's round, in buffers that live until the thread's next one: L = [B dB₁ … dBₙ] and R = [A; dA₁; …; dAₙ],
    and the frozen ranks beside the trained ones, of rank 0 where there are none."""

    left: list[Float32]
    right: list[Float32]
    frozen_b: Float32
    frozen_a: Float32


class Round:
    """What the threads of one step share: the updates that count, their shares, and the form of the adapter before.

    `rate` multiplies the shares. Updates of weight 0 are not read. Raises CorruptStore for a file of another size.
    """

    def __init__(self, spec: RunSpec, step: Step, counted: Counted, files: Files, rate: float = 1.0) -> None:
        self.spec, self.files, self.r = spec, files, spec.lora.r
        if counted.kept is not None:
            raise Refused(
                f"{spec.aggregation.rule} looks at each coordinate alone, which product space has not",
                "choose a rule that weighs whole updates, or lora.mode freeze_a",
            )
        self.modules = modules(spec.tensors)
        forms = {form.size: (rank, form) for rank in spec.lora.node_ranks for form in (layout_of(spec, step, rank),)}
        self.updates: list[Update] = []
        for file, weight in enumerate(counted.weights, start=1):
            if weight:
                size = files.paths[file].stat().st_size
                if size not in forms:
                    raise altered(files, file)
                self.updates.append(Update(file, *forms[size]))
        self.weights, self.denominator = [weight for weight in counted.weights if weight], counted.denominator
        ranks = [update.rank for update in self.updates]
        self.taken: list[Float64] = mean_product.shares(self.weights, ranks, self.r, rate, self.denominator)
        self.base = AdapterFile(spec, files, 0)

    def loader(self) -> Callable[[Module], Stack]:
        """A function that reads one module's factors into buffers of its own. Raises Refused for a cohort that is too large."""
        directions = self.r + sum(update.rank for update in self.updates)
        if directions > mean_product.MOST_DIRECTIONS:
            raise Refused(
                f"the round's updates have {directions} directions, product space takes {mean_product.MOST_DIRECTIONS}",
                "lower run.max_cohort or lora.r for the next run",
            )
        total = self.base.rank + sum(update.rank for update in self.updates)
        arena = np.empty(total * max(module.extent for module in self.modules), dtype="<f4")
        readers = {update.rank: BlockReader(update.layout, PIECE) for update in self.updates}

        def load(module: Module) -> Stack:
            used = self.base.rank * module.extent
            whole_a, whole_b = self.base.read(module, arena[:used])
            left, right = [whole_b[:, : self.r]], [whole_a[: self.r]]
            for update in self.updates:
                part = arena[used : used + update.rank * module.extent]
                split = update.rank * module.a.shape[1]
                self.fill(readers[update.rank], update, module.number, part[:split])
                self.fill(readers[update.rank], update, module.number + 1, part[split:])
                right.append(part[:split].reshape(update.rank, -1))
                left.append(part[split:].reshape(-1, update.rank))
                used += part.size
            return Stack(left, right, whole_b[:, self.r :], whole_a[self.r :])

        return load

    def one_by_one(self) -> Callable[[Module], Iterator[tuple[Float32, Float32]]]:
        """A function that reads one module's dBᵢ (d, rᵢ) and dAᵢ (rᵢ, k) node by node, each into the same buffer."""
        most = max((update.rank for update in self.updates), default=0)
        arena = np.empty(most * max(module.extent for module in self.modules), dtype="<f4")
        readers = {update.rank: BlockReader(update.layout, PIECE) for update in self.updates}

        def read(module: Module) -> Iterator[tuple[Float32, Float32]]:
            for update in self.updates:
                part = arena[: update.rank * module.extent]
                split = update.rank * module.a.shape[1]
                self.fill(readers[update.rank], update, module.number, part[:split])
                self.fill(readers[update.rank], update, module.number + 1, part[split:])
                yield part[split:].reshape(-1, update.rank), part[:split].reshape(update.rank, -1)

        return read

    def fill(self, reader: BlockReader, update: Update, tensor: int, out: Float32) -> None:
        """The ring values of one tensor of an update, q·2^-F, which float32 holds."""
        bits = self.spec.ring.fraction_bits
        for start in range(0, out.size, PIECE):
            part = out[start : start + PIECE]
            try:
                values = reader.values(self.files.source(update.file), tensor, start, part.size)
            except BadContainer as error:
                raise altered(self.files, update.file) from error
            round_to_ring(values, bits, out=part)
            part *= np.float32(2.0**-bits)

    def spare(self, module: Module) -> Float32:
        """A of adapter 0, shape (r, k)."""
        flat = np.concatenate(list(adapter_zero.blocks(module.a, self.spec.training.seed)))
        return flat.reshape(module.a.shape)


class AdapterFile:
    """An adapter among the files of a round; its rank is the run's own, or that with the residual's. Raises CorruptStore for
    another file."""

    def __init__(self, spec: RunSpec, files: Files, number: int) -> None:
        self.files, self.number, path = files, number, files.paths[number]
        try:
            with path.open("rb") as file:
                form = form_of(spec, file.read)
            whole = path.stat().st_size == form.size
        except (OSError, BadContainer) as error:
            raise CorruptStore(f"{path} is no adapter of this run", RESTORE) from error
        if not whole:
            raise CorruptStore(f"{path} is no adapter of this run: its size is wrong", RESTORE)
        self.rank, self.starts = form.rank, [len(form.header)]
        for tensor in form.tensors:
            self.starts.append(self.starts[-1] + 4 * tensor.size)

    def position(self, module: Module) -> int:
        """The number of a module's first element in the whole adapter."""
        return (self.starts[module.number] - self.starts[0]) // 4

    def read(self, module: Module, out: Float32) -> tuple[Float32, Float32]:
        """A (rank, k) and B (d, rank) of a module, in `out`."""
        part = out[: self.rank * module.extent]
        self.files.fill(self.number, self.starts[module.number], part.data.cast("B"))
        split = self.rank * module.a.shape[1]
        return part[:split].reshape(self.rank, -1), part[split:].reshape(-1, self.rank)
