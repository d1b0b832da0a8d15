# SPDX-License-Identifier: Apache-2.0
"""Accounting of sampled releases by Google's dp-accounting, of the extra `dp`.

The privacy loss distribution (PLD) is tight; where its grid would be too large, Rényi DP (RDP) takes its place, which
is never below the truth either. RDP also bounds what PLD gives: the smaller of two upper bounds is one. Importing it
costs 65 MiB (scipy), so daemons run this module as a child process: `flb.accounting`.
"""

import json
import math
import sys

from flb.errors import MissingTool

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
    if noise_multiplier < LEAST_MULTIPLIER:
        return math.inf
    bounds = [by_rdp(noise_multiplier, sampling_rate, rounds, delta)]
    if grid_points(noise_multiplier, sampling_rate, rounds) <= LARGEST_GRID:
        bounds.append(by_pld(noise_multiplier, sampling_rate, rounds, delta))
    return min(bounds)


def by_pld(noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """ε by privacy loss distributions, pessimistic by the width of a cell for each round."""
    try:
        import dp_accounting
        from dp_accounting.pld import PLDAccountant
    except ImportError as error:
        raise missing() from error
    accountant = PLDAccountant(value_discretization_interval=INTERVAL)
    release = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    return float(accountant.compose(release, rounds).get_epsilon(delta))


def by_rdp(noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """ε by Rényi DP over the library's own orders."""
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise missing() from error
    release = dp_accounting.PoissonSampledDpEvent(sampling_rate, dp_accounting.GaussianDpEvent(noise_multiplier))
    return float(RdpAccountant().compose(release, rounds).get_epsilon(delta))


def missing() -> MissingTool:
    """The refusal where the extra is not installed."""
    return MissingTool("accounting of sampled rounds needs dp-accounting", "pip install 'flb[dp]'")


if __name__ == "__main__":  # the child of `flb.accounting`
    multiplier, rate, count, probability = json.loads(sys.argv[1])
    try:
        print(json.dumps({"epsilon": epsilon(multiplier, rate, count, probability)}))
    except MissingTool as refusal:
        print(json.dumps({"missing": [refusal.what, refusal.remedy]}))
