# SPDX-License-Identifier: Apache-2.0
"""Clipping and discrete Gaussian noise on one core.

    python -m bench.noise [--millions 42] [--repeat R] [--json]

`cpu_s` counts this process's own time, `seconds` the clock; on a quiet machine they agree. The deviation is that of
`noise: weak` for 42 million values trained with the defaults (0.001 of the clip norm), in units of 2^-32, and, for
comparison, of noise a thousand times larger. Run it with OPENBLAS_NUM_THREADS=1.
"""

import argparse
import json
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

from flb.delta import Int64
from flb.privacy.clip import clip_factor
from flb.privacy.discrete_gaussian import Noise, stages_of

PIECE = 1 << 20
"""Values that are worked on at a time: a tensor of a real adapter has about as many."""


def noise(values: Int64, count: int, sigma: Fraction) -> None:
    """Add noise to `count` values, a piece at a time; the table is made anew by the first."""
    drawn = Noise(sigma, bytes(range(32)))
    for start in range(0, count, PIECE):
        drawn.add(values[: min(PIECE, count - start)])


def clip(values: Int64, count: int) -> None:
    """Measure, clip to half the norm, verify, and apply."""
    pieces = [values[: min(PIECE, count - start)] for start in range(0, count, PIECE)]
    norm = sum(float(np.dot(piece.astype(float), piece.astype(float))) for piece in pieces) ** 0.5
    factor = clip_factor(lambda: pieces, int(norm / 2))
    for piece in pieces:
        factor.apply(piece.copy())


def fastest(work: Callable[[], None], repeat: int) -> dict[str, float]:
    """The run of least processor time."""
    runs = []
    for _ in range(repeat):
        clock, own = time.perf_counter(), time.process_time()
        work()
        runs.append((time.process_time() - own, time.perf_counter() - clock))
    cpu, seconds = min(runs)
    return {"cpu_s": round(cpu, 3), "seconds": round(seconds, 3)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=float, default=42, help="values (default: 42 million)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    options = parser.parse_args()
    count = round(options.millions * 1e6)
    values = np.random.default_rng(0).integers(-(1 << 23), 1 << 23, size=PIECE)
    results: dict[str, Any] = {"values": count, "numpy": np.__version__, "noise": []}
    for sigma in (Fraction(69_585_000), Fraction(69_585_000_000)):
        stages = stages_of(sigma)
        row = {"sigma_units": float(sigma), "stages": stages.count, "base": stages.base}
        results["noise"].append(row | fastest(lambda sigma=sigma: noise(values, count, sigma), options.repeat))  # type: ignore[misc]
    results["clip"] = fastest(lambda: clip(values, count), options.repeat)
    if options.json:
        print(json.dumps(results))
        return
    for row in results["noise"]:
        print(
            f"noise of {row['sigma_units']:g} units, {row['stages']} stages: {row['seconds']} s ({row['cpu_s']} s of processor)"
        )
    print(f"clip: {results['clip']['seconds']} s ({results['clip']['cpu_s']} s of processor)")


if __name__ == "__main__":
    main()
