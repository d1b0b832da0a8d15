# SPDX-License-Identifier: Apache-2.0
"""The Gram matrix of a round's updates in product space, for modes that send both factors: module by module from files.

What it is, and why it is exact where it must be, stands in `flb.aggregation.product_gram`. Of a large cohort two groups
of nodes are held at a time; memory grows with the rank and the square of the cohort, not with the adapter.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from flb.admission import Layout, layout_of
from flb.aggregation.affine import chain
from flb.aggregation.gram import Gram, reduce_into, within_bound
from flb.aggregation.product_gram import Unit, base_unit, gram_unit, integers, module, square_bound, update_unit
from flb.delta import BLOCK, Float64, Int64, norm_shift
from flb.lora.shape import A
from flb.spec import RunSpec
from flb.types import LoraMode, Step, TensorSpec
from flb.wire import container
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.ring_blocks import RingBlocks, altered

TOGETHER = 64
"""The most nodes whose factors are held at a time."""

CELLS = 1 << 21
"""The most values in the blocks of one thread: 16 MiB."""


class Factor(NamedTuple):
    """One factor of a module: its tensor, its number in an update, where it starts in the base, its largest entry."""

    tensor: TensorSpec
    number: int
    offset: int
    largest: float


def gram_of(spec: RunSpec, step: Step, count: int, files: Files, threads: int) -> Int64:
    """(n, n) inner products of BᵢAᵢ - BA, summed over modules in file order; updates are 1 to `count` of `files`. In a mode
    that averages each factor on its own, those of dBᵢ and of dAᵢ are added.

    Raises CorruptStore for an update with a factor beyond what admission allows.
    """
    layout = layout_of(spec, step)
    factors = list(_factors(spec, layout, files))
    modules = list(zip(factors[::2], factors[1::2], strict=True))
    squares_a, squares_b = (
        chain(square_bound(pair[side].largest, pair[side].tensor.size) for pair in modules) for side in (0, 1)
    )
    unit = gram_unit(spec.ring.norm_bound, squares_a, squares_b, apart(spec))
    total = np.zeros((count, count))
    for nodes in _groups(count):
        part = np.zeros((len(nodes), len(nodes)))

        def worker(nodes: Sequence[int] = nodes) -> Callable[[tuple[Factor, Factor]], Float64]:
            return Reader(spec, layout, files, nodes).inner_products

        def add(found: Float64, part: Float64 = part) -> None:
            np.add(part, found, out=part)

        in_order(modules, worker, add, threads)
        total[np.ix_(nodes, nodes)] = part
    return integers(total, unit)


def apart(spec: RunSpec) -> bool:
    """Whether the run averages each factor on its own."""
    return spec.lora_mode is LoraMode.FACTORS


def _groups(count: int) -> Iterator[list[int]]:
    """Sets of nodes, at most `TOGETHER` each, that hold every pair."""
    if count <= TOGETHER:
        yield list(range(count))
        return
    halves = [list(range(start, min(start + TOGETHER // 2, count))) for start in range(0, count, TOGETHER // 2)]
    for one, other in combinations(halves, 2):
        yield one + other


def _factors(spec: RunSpec, layout: Layout, files: Files) -> Iterator[Factor]:
    """A and B of every module, in file order, with the largest entry of the base."""
    offset, numbers = len(container.adapter_header(spec.tensors)), {t.name: n for n, t in enumerate(layout.tensors)}
    held = np.empty(4 * BLOCK, dtype="<f4")
    for tensor in spec.tensors:
        largest = 0.0
        for start in range(0, tensor.size, held.size):
            block = held[: min(held.size, tensor.size - start)]
            files.fill(0, offset + 4 * start, block.data.cast("B"))
            largest = max(largest, -float(block.min()), float(block.max()))
        yield Factor(tensor, numbers[tensor.name], offset, largest)
        offset += 4 * tensor.size


class Reader:
    """Reads the factors of some nodes, in one thread's own buffers, and multiplies them."""

    def __init__(self, spec: RunSpec, layout: Layout, files: Files, nodes: Sequence[int]) -> None:
        self._files, self._nodes, self._rank = files, nodes, layout.tensors[0].shape[0]  # A's rows
        self._shift = norm_shift(spec.ring.norm_bound, spec.ring.fraction_bits)
        self._update, self._factors = update_unit(spec.ring.norm_bound), apart(spec)
        vectors = (len(nodes) + 1) * self._rank
        longest = -(-max(max(tensor.shape) for tensor in layout.tensors) // 64) * 64
        self._columns = min(longest, max(64, CELLS // vectors // 64 * 64))
        size = self._rank * self._columns + 64
        self._blocks = RingBlocks(files, layout, spec.ring.fraction_bits, size)
        self._base, self._held = np.empty(size, dtype="<f4"), np.empty(size)
        self._gram = Gram(vectors, self._columns)

    def inner_products(self, pair: tuple[Factor, Factor]) -> Float64:
        """(n, n) of one module. Raises CorruptStore for a factor that no admitted update has."""
        a, b = pair
        unit_a, unit_b = base_unit(a.largest, a.tensor.shape[1]), base_unit(b.largest, b.tensor.shape[0])
        left = self._exact(b, unit_b).copy()
        return module(left, self._exact(a, unit_a), self._rank, unit_b, unit_a, self._update, self._factors)

    def _exact(self, factor: Factor, unit: Unit) -> Float64:
        """Inner products of r vectors of the base, then r of each node: rows of A, or columns of B. Valid until the next
        call."""
        self._gram.matrix.fill(0)
        is_a = factor.tensor.name.endswith(A)
        length = factor.tensor.shape[1 if is_a else 0]
        for start in range(0, length, self._columns):
            count = min(self._columns, length - start)
            rows = self._gram.rows(count)
            for place, source in enumerate((0, *(1 + node for node in self._nodes))):
                vectors = rows[place * self._rank : (place + 1) * self._rank]
                if not is_a:
                    read = self._integers(factor, source, start * self._rank, count * self._rank, unit)
                    vectors[:] = read.reshape(count, self._rank).T
                elif count == length:
                    vectors[:] = self._integers(factor, source, 0, self._rank * count, unit).reshape(-1, count)
                else:
                    for row, vector in enumerate(vectors):
                        first = row * length + start
                        before = first % 64  # every codec can start at a multiple of 64
                        vector[:] = self._integers(factor, source, first - before, before + count, unit)[before:]
            self._gram.add(count)
        bounded = within_bound(self._gram.matrix)[self._rank :]
        for place in np.flatnonzero(~bounded).tolist():
            raise altered(self._files, 1 + self._nodes[place // self._rank])
        return self._gram.matrix

    def _integers(self, factor: Factor, source: int, first: int, count: int, unit: Unit) -> Float64:
        """Elements of one factor in units of 2^exponent; `source` 0 is the base. Valid until the next call."""
        held = self._held[:count]
        if source:
            reduce_into(self._blocks.values(source, factor.number, first, count), self._shift, held)
            return held
        base = self._base[:count]
        self._files.fill(0, factor.offset + 4 * first, base.data.cast("B"))
        np.multiply(base, 2.0**-unit.exponent, out=held, dtype=np.float64)
        np.rint(held, out=held)
        return held
