# SPDX-License-Identifier: Apache-2.0
"""Accounting of sampled releases by Google's dp-accounting, of the extra `dp`.

The privacy loss distribution (PLD) is tight; where its grid would be too large, Rényi DP (RDP) takes its place, which
is never below the truth either. RDP also bounds what PLD gives: the smaller of two upper bounds is one. Importing it
costs 65 MiB (scipy), so daemons run this module as a child process: `flb.accounting`.
"""

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

from flb.errors import MissingTool, Refused

Releases = Sequence[tuple[float, float, int]]
"""Noise multiplier, sampling rate, and how many."""

LARGEST_GRID = 1 << 22
"""Points of the privacy loss distribution, at most: 8 bytes each, some copies, and as many again for the transform."""
INTERVAL = 1e-4
"""Width of its cells, in ε."""
LEAST_MULTIPLIER = 1e-6


def grid_points(noise_multiplier: float, sampling_rate: float, rounds: int) -> int:
    """About how many cells the composed loss of so many rounds spreads over.

    One round's loss has mean and variance of at most q²(e^(1/z²) - 1), the chi-square divergence, and never more than
    without sampling: 1/2z² and 1/z². Twelve deviations to either side hold all that counts.
    """
    inverse = noise_multiplier**-2
    spread = min(sampling_rate**2 * math.expm1(inverse) if inverse < 700 else math.inf, inverse)
    return math.ceil((rounds * spread + 24 * math.sqrt(rounds * spread)) / INTERVAL)


def epsilon(noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """ε of `rounds` Gaussian releases of Poisson samples, add or remove one; infinite below a multiplier of 10^-6.

    Raises MissingTool without the extra.
    """
    return epsilon_of_releases([(noise_multiplier, sampling_rate, rounds)], delta)


def epsilon_of_releases(releases: Releases, delta: float) -> float:
    """ε of several kinds of releases together, as `epsilon`; a sampling rate of 1 is none."""
    if any(multiplier < LEAST_MULTIPLIER for multiplier, _, _ in releases):
        return math.inf
    bounds = [by_rdp(releases, delta)]
    if sum(grid_points(*release) for release in releases) <= LARGEST_GRID:
        bounds.append(by_pld(releases, delta))
    return min(bounds)


def noise_multiplier_for(sampling_rate: float, rounds: int, epsilon: float, delta: float, least: float) -> float:
    """A noise multiplier of at least `least` whose `rounds` releases stay within (ε, δ), at most 2 % above what is needed.

    By RDP, which is quick, and then down by PLD while that allows it. Where `least` is enough nothing is searched. Raises Refused where no multiplier below a million does.
    """
    low = high = least
    while by_rdp([(high, sampling_rate, rounds)], delta) > epsilon:
        low, high = high, 2 * high
        if high > 1e6:
            raise Refused(f"no noise brings {rounds} releases to epsilon {epsilon:g}", "choose a larger epsilon")
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if by_rdp([(middle, sampling_rate, rounds)], delta) > epsilon else (low, middle)
    while (lower := max(least, high / 1.02)) < high and grid_points(lower, sampling_rate, rounds) <= LARGEST_GRID:
        if by_pld([(lower, sampling_rate, rounds)], delta) > epsilon:
            break
        high = lower
    return high


def by_pld(releases: Releases, delta: float) -> float:
    """ε by privacy loss distributions, pessimistic by the width of a cell for each round."""
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise missing() from error
    return composed(dp_accounting, PLDAccountant(value_discretization_interval=INTERVAL), releases, delta)


def by_rdp(releases: Releases, delta: float) -> float:
    """ε by Rényi DP over the library's own orders."""
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise missing() from error
    return composed(dp_accounting, RdpAccountant(), releases, delta)


def composed(library: Any, accountant: Any, releases: Releases, delta: float) -> float:
    """ε of all releases by an accountant of the library."""
    for multiplier, rate, count in releases:
        release = library.GaussianDpEvent(multiplier)
        accountant.compose(library.PoissonSampledDpEvent(rate, release) if rate < 1 else release, count)
    return float(accountant.get_epsilon(delta))


def missing() -> MissingTool:
    """The refusal where the extra is not installed."""
    return MissingTool("accounting of sampled rounds needs dp-accounting", "pip install 'flb[dp]'")


if __name__ == "__main__":  # the child of `flb.accounting`
    name, *arguments = json.loads(sys.argv[1])
    try:
        answer = epsilon_of_releases(*arguments) if name == "epsilon" else noise_multiplier_for(*arguments)
        print(json.dumps({"answer": answer}))
    except MissingTool as refusal:
        print(json.dumps({"missing": [refusal.what, refusal.remedy]}))
    except Refused as refusal:
        print(json.dumps({"refused": [refusal.what, refusal.remedy]}))
