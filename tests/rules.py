# SPDX-License-Identifier: Apache-2.0
"""Vectors of integers for tests of aggregation rules, and what a weighing of them comes to."""

from fractions import Fraction

import numpy as np

from flb.aggregation import rules
from flb.aggregation.gram import squared_distances
from flb.aggregation.order_statistics import RangeSum
from flb.aggregation.weighing import Weighing
from flb.delta import Float64, Int64
from flb.spec_sections import AggregationSpec
from flb.types import Step

SCALE = 2.0**16
"""Units for one of a test's values: integers, as updates are, and fine enough to compare with real numbers."""


def integer_vectors(values: np.ndarray) -> Int64:
    """Real vectors in units of 1/SCALE."""
    return np.rint(np.asarray(values, dtype=np.float64) * SCALE).astype(np.int64)


def gram_of(vectors: Int64) -> Int64:
    """Exact inner products."""
    return np.asarray(vectors @ vectors.T, dtype=np.int64)


def squared_of(vectors: Int64) -> Float64:
    """Squared distances as rules see them."""
    return squared_distances(gram_of(vectors)).astype(np.float64)


def result_of(weighing: Weighing, vectors: Int64) -> Float64:
    """Σ weights·vector / denominator in exact arithmetic, back in values."""
    columns = vectors.T.tolist()
    sums = [sum(w * x for w, x in zip(weighing.weights, column, strict=True)) for column in columns]
    return np.array([float(Fraction(total, weighing.denominator)) for total in sums]) / SCALE


def applied(spec: AggregationSpec, vectors: Int64) -> Float64:
    """The rule's result in values."""
    count, gram = len(vectors), gram_of(vectors)
    rules.check(spec, count)
    mixed = rules.mixture(spec, squared_distances(gram), count, bytes(32), Step(1))
    if not rules.capabilities(spec).coordinates:
        return result_of(rules.weigh(spec, gram, [1] * count, mixed), vectors)
    rows = vectors if mixed is None else mixed.matrix @ vectors
    first, last = rules.ranks(spec, len(rows))
    held = RangeSum(len(rows), first, last, np.int64, rows.shape[1])
    held.rows(rows.shape[1])[:] = rows
    total = held.into(np.empty(rows.shape[1], dtype=np.int64)).tolist()
    divisor = (last - first) * (1 if mixed is None else mixed.denominator)
    return np.array([float(Fraction(value, divisor)) for value in total]) / SCALE


def honest(seed: int, count: int = 7, size: int = 5) -> np.ndarray:
    """Real vectors of honest nodes."""
    return np.random.default_rng(seed).standard_normal((count, size))
