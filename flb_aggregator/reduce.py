# SPDX-License-Identifier: Apache-2.0
"""From one block of all updates to integers: a weighted sum, or a sum of order statistics of every coordinate."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flb.aggregation.mean import weighted_sum
from flb.aggregation.mixture import Mixture
from flb.aggregation.order_statistics import RangeSum
from flb_aggregator.ring_blocks import RingBlocks

Reduce = Callable[[int, int, NDArray[Any]], None]
"""Sets a block of the total, from the tensor's number and the block's first element."""


def weighted(blocks: RingBlocks, weights: Sequence[int], kind: type[Any], size: int) -> Reduce:
    """Σ w·q over blocks of at most `size` elements. Updates of weight 0 are not read."""
    scaled = np.empty(size, dtype=kind)

    def counted(tensor: int, start: int, part: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
        for update, weight in enumerate(weights, start=1):
            if weight:
                np.copyto(part, blocks.values(update, tensor, start, part.size), casting="unsafe")
                yield weight, part

    def reduce(tensor: int, start: int, total: NDArray[Any]) -> None:
        weighted_sum(counted(tensor, start, scaled[: total.size]), total)

    return reduce


def ranked(blocks: RingBlocks, count: int, kept: tuple[int, int], mixture: Mixture | None, kind: type[Any]) -> Reduce:
    """Σ of the kept order statistics of `count` updates, mixed before where there is a mixture.

    Without one the values are compared in float32, which holds the ring values of one update.
    """
    groups = count if mixture is None else len(mixture.matrix)
    statistics = RangeSum(groups, *kept, kind=np.float32 if mixture is None else kind)
    unmixed = None if mixture is None else np.empty((count, statistics.size), dtype=kind)
    matrix = None if mixture is None else mixture.matrix.astype(kind)

    def reduce(tensor: int, start: int, total: NDArray[Any]) -> None:
        for offset in range(0, total.size, statistics.size):
            part = total[offset : offset + statistics.size]
            rows = statistics.rows(part.size)
            read = rows if unmixed is None else unmixed[:, : part.size]
            for update, row in enumerate(read, start=1):
                np.copyto(row, blocks.values(update, tensor, start + offset, part.size), casting="unsafe")
            if matrix is not None:
                np.matmul(matrix, read, out=rows)  # exact: integers, within 2^53 where they are floats
            statistics.into(part)

    return reduce
