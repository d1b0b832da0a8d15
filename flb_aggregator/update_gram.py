# SPDX-License-Identifier: Apache-2.0
"""The Gram matrix of a round's updates as flat vectors, for modes that send one factor: exact, in blocks from files."""

from collections.abc import Callable

import numpy as np

from flb.admission import layout_of
from flb.aggregation.gram import Gram, reduce_into, within_bound
from flb.delta import Int64, norm_shift
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.ring_blocks import RingBlocks, altered
from flb_aggregator.spans import Span, spans


def gram_of(spec: RunSpec, step: Step, count: int, files: Files, threads: int) -> Int64:
    """(n, n) inner products in units of `flb.delta.norm_shift`; updates are numbers 1 to `count` of `files`.

    Sums of integers within 2^53, so neither blocks nor threads change them. Raises CorruptStore for an update whose
    norm is beyond what admission allows.
    """
    layout = layout_of(spec, step)
    numbers = {tensor.name: number for number, tensor in enumerate(layout.tensors)}
    shift = norm_shift(spec.ring.norm_bound, spec.ring.fraction_bits)
    parts: list[Gram] = []

    def worker() -> Callable[[Span], None]:
        gram = Gram(count)
        parts.append(gram)
        blocks = RingBlocks(files, layout, spec.ring.fraction_bits, gram.size)

        def add(span: Span) -> None:
            for start in range(span.start, span.start + span.count, gram.size):
                size = min(gram.size, span.start + span.count - start)
                for update, row in enumerate(gram.rows(size), start=1):
                    reduce_into(blocks.values(update, numbers[span.tensor.name], start, size), shift, row)
                gram.add(size)

        return add

    in_order(list(spans(layout.tensors)), worker, lambda done: None, threads)
    total = np.zeros((count, count))
    for part in parts:
        total += part.matrix
    for update, bounded in enumerate(within_bound(total), start=1):
        if not bounded:
            raise altered(files, update)
    return total.astype(np.int64)
