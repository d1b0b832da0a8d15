# SPDX-License-Identifier: Apache-2.0
"""What a number of noised releases costs: ε at a given δ, and the noise that a budget asks for.

The Gaussian mechanism with noise multiplier z (its deviation over the sensitivity) has μ = 1/z; T releases of it have
μ = √T/z exactly (Dong, Roth, Su, arXiv 1905.02383), and for every ε

    δ(ε) = Φ(μ/2 - ε/μ) - e^ε · Φ(-μ/2 - ε/μ)            (Balle, Wang, arXiv 1805.06530, theorem 8)

worked out in logarithms, since e^ε overflows. Sampled releases have no closed form: `flb.privacy.sampled`.
"""

import math

from flb.errors import Refused

MARGIN = 1e-9
"""By this share results are rounded to the safe side: more than the error of the arithmetic."""
LARGEST_EPSILON = 1e12
"""Beyond it nothing is protected; ε is infinite then."""


def log_normal_cdf(x: float) -> float:
    """ln Φ(x). Below -25 by the asymptotic series of Mills' ratio, whose first left out term is below 2e-16."""
    if x > -25:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2) if x < 0 else math.log1p(-math.erfc(x / math.sqrt(2)) / 2)
    term = series = 1.0
    for odd in range(1, 16, 2):
        term *= -odd / (x * x)
        series += term
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) + math.log(series)


def log_delta(epsilon: float, mu: float) -> float:
    """ln δ(ε) of a release with μ = sensitivity over deviation; -inf where δ is too small for a float to tell."""
    first = log_normal_cdf(mu / 2 - epsilon / mu)
    second = epsilon + log_normal_cdf(-mu / 2 - epsilon / mu)
    gap = second - first
    return first + math.log(-math.expm1(gap)) if gap < 0 else -math.inf


def check_delta(delta: float) -> None:
    """Raise Refused unless δ is a probability that a guarantee can have."""
    if not 0 < delta < 1:
        raise Refused(f"delta is {delta}", "choose a number above 0 and below 1, and well below 1 over the nodes")


def epsilon_of(mu: float, delta: float) -> float:
    """The least ε of a Gaussian release with this μ, rounded up; infinite beyond 10^12. Raises Refused for a δ outside
    0 to 1, and a μ that is no number."""
    check_delta(delta)
    if not mu >= 0:
        raise Refused(f"mu is {mu}", "report this as a defect")
    aim = math.log(delta)
    if mu == 0 or log_delta(0.0, mu) <= aim:
        return 0.0
    if mu == math.inf:
        return math.inf
    low, high = 0.0, 1.0
    while log_delta(high, mu) > aim:
        low, high = high, 2 * high
        if high > LARGEST_EPSILON:
            return math.inf
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if log_delta(middle, mu) > aim else (low, middle)
    return high * (1 + MARGIN)


def epsilon_of_rounds(*, noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """ε of a run at `delta`, rounded up: `rounds` Gaussian releases, each of a Poisson sample at `sampling_rate`.

    `noise_multiplier` is the noise's deviation over the sensitivity: σ/C where a node's update may be left out, σ/2C
    where it may be replaced by any other. At rate 1 it is exact; below, dp-accounting bounds it, and MissingTool is
    raised where that is not installed. Raises Refused for numbers out of range.
    """
    check_delta(delta)
    if not noise_multiplier > 0 or not 0 < sampling_rate <= 1 or rounds < 0:
        raise Refused(
            f"noise multiplier {noise_multiplier}, sampling rate {sampling_rate}, {rounds} rounds",
            "choose a multiplier above 0, a rate above 0 and at most 1, and 0 or more rounds",
        )
    if rounds == 0 or noise_multiplier == math.inf:
        return 0.0
    if sampling_rate < 1:
        from flb.privacy import sampled

        return sampled.epsilon(noise_multiplier, sampling_rate, rounds, delta)
    return epsilon_of(math.sqrt(rounds) / noise_multiplier, delta)


def mu_for(epsilon: float, delta: float) -> float:
    """The largest μ within (ε, δ), rounded down: the inverse of `epsilon_of`. Raises Refused for no budget at all."""
    check_delta(delta)
    if not 0 < epsilon < LARGEST_EPSILON:
        raise Refused(f"epsilon is {epsilon}", "choose a number above 0; 1 is strong, 10 is weak")
    aim = math.log(delta)
    low, high = 0.0, 1.0
    while log_delta(epsilon, high) <= aim:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if log_delta(epsilon, middle) <= aim else (low, middle)
    mu = low * (1 - MARGIN)
    while epsilon_of(mu, delta) > epsilon:
        mu *= 1 - MARGIN
    return mu


def noise_multiplier_for(epsilon: float, delta: float, rounds: int) -> float:
    """The least noise multiplier whose `rounds` releases of everybody stay within (ε, δ), rounded up.

    √T/μ, so that `epsilon_of_rounds` gives at most `epsilon` again. Raises Refused as `mu_for`, and below one round.
    """
    if rounds < 1:
        raise Refused(f"a budget for {rounds} rounds", "choose at least 1")
    multiplier = math.sqrt(rounds) / mu_for(epsilon, delta)
    while epsilon_of_rounds(noise_multiplier=multiplier, sampling_rate=1.0, rounds=rounds, delta=delta) > epsilon:
        multiplier *= 1 + MARGIN
    return multiplier
