# SPDX-License-Identifier: Apache-2.0
"""Rounds on paper for tests of product space: an adapter, what each node moves it by, and the dense answers."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flb.lora import gram, mean_product, product

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cohort:
    """One module's round; `db[i]` (d, rᵢ) and `da[i]` (rᵢ, k) are what node i moves the first rᵢ directions by."""

    b: Array
    a: Array
    db: tuple[Array, ...]
    da: tuple[Array, ...]
    weights: tuple[int, ...]

    @property
    def r(self) -> int:
        return self.b.shape[1]

    @property
    def ranks(self) -> list[int]:
        return [part.shape[1] for part in self.db]

    @property
    def taken(self) -> list[Array]:
        return mean_product.shares(self.weights, self.ranks, self.r)

    @property
    def left(self) -> list[Array]:
        return [self.b, *self.db]

    @property
    def right(self) -> list[Array]:
        return [self.a, *self.da]

    @property
    def grams(self) -> tuple[Array, Array]:
        return gram.of_columns(self.left), gram.of_rows(self.right)

    @property
    def ends(self) -> list[tuple[Array, Array]]:
        """Every node's own factors."""
        pairs = zip(self.db, self.da, strict=True)
        return [(self.b[:, : db.shape[1]] + db, self.a[: da.shape[0]] + da) for db, da in pairs]

    @property
    def dense(self) -> Array:
        """Σ pᵢBᵢAᵢ, for equal ranks."""
        total = sum(self.weights)
        return sum(
            (w / total * (b @ a) for w, (b, a) in zip(self.weights, self.ends, strict=True)), 0 * self.b @ self.a
        )

    def combined(self, energy: float = 1.0) -> tuple[Array, Array, product.Truncated]:
        cut = product.truncate(mean_product.target(self.taken, self.r), *self.grams, self.r, energy)
        return *product.factors(self.left, self.right, cut, self.r, lambda: spare_of(self)), cut


def spare_of(cohort: Cohort) -> Array:
    """Stands for A of adapter 0."""
    return np.random.default_rng(99).uniform(-0.1, 0.1, cohort.a.shape)


def cohort(
    d: int = 40, k: int = 56, r: int = 4, nodes: int = 5, drift: float = 0.1, seed: int = 0, ranks: tuple[int, ...] = ()
) -> Cohort:
    """A round of random drift; `ranks` where they differ."""
    random = np.random.default_rng(seed)
    own = ranks or (r,) * nodes
    return Cohort(
        random.standard_normal((d, r)), random.standard_normal((r, k)),
        tuple(random.standard_normal((d, ri)) * drift for ri in own),
        tuple(random.standard_normal((ri, k)) * drift for ri in own),
        tuple(int(w) for w in random.integers(1, 100, len(own))),
    )  # fmt: skip


def of_ends(base: Cohort, ends: list[tuple[Array, Array]]) -> Cohort:
    """The round in which the nodes end at other factors."""
    db = tuple(b - base.b[:, : b.shape[1]] for b, _ in ends)
    da = tuple(a - base.a[: a.shape[0]] for _, a in ends)
    return Cohort(base.b, base.a, db, da, base.weights)


def best(whole: Array, r: int) -> Array:
    """The best approximation of rank r by a dense singular value decomposition."""
    u, s, vt = np.linalg.svd(whole, full_matrices=False)
    return (u[:, :r] * s[:r]) @ vt[:r]
