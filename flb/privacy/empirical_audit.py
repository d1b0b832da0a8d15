# SPDX-License-Identifier: Apache-2.0
"""An empirical audit: how well an attacker tells two neighbours apart who sees what the real clip and noise code releases.

Every (ε, δ) mechanism obeys P[S | one] ≤ e^ε · P[S | other] + δ for every set S. So an attack whose true positive rate
is at least t and whose false positive rate is at most f, each with confidence, shows that ε is at least ln((t - δ)/f)
(Jagielski, Ullman, Oprea, arXiv 2006.07709). A bound above the claim convicts; one below it proves nothing.

The neighbours are the worst case: two updates far beyond the clip norm that point in opposite directions, released in
each of `rounds` rounds. The attacker knows both and projects all releases onto their difference. The threshold is chosen on
half of the trials, the rates are counted on the other half.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flb.delta import Float32
from flb.errors import Refused
from flb.privacy.local import epsilon_after
from flb.privacy.release import Release
from flb.spec_sections import PrivacySpec, RingSpec

CONFIDENCE = 0.95
"""That both rates are within their bounds at once."""
VALUES = 16
"""Of an update: what an attacker gains does not depend on how many there are."""
BEYOND = 10.0
"""The norm of the updates before they are clipped, in clip norms."""
RING = RingSpec(fraction_bits=32, value_bound=1024, weight_cap=1, norm_bound=1024)
THRESHOLDS = 50
"""That the attacker tries."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`epsilon` is claimed for `rounds` releases at `delta`; `shown` is what the attack shows that it is at least, with
    `CONFIDENCE`, from `true_positives` and `false_positives` in `counted` trials of each neighbour."""

    trials: int
    rounds: int
    epsilon: float
    delta: float
    shown: float
    counted: int
    true_positives: int
    false_positives: int

    @property
    def convicted(self) -> bool:
        """Whether the claim is refuted."""
        return self.shown > self.epsilon


def audit(
    claimed: PrivacySpec, trials: int, rounds: int, draw_key: Callable[[], bytes], share_of_noise: float = 1.0
) -> Verdict:
    """Attack local privacy in `trials` runs of `rounds` releases, half of them of each neighbour.

    `share_of_noise` below 1 audits a mechanism that adds less noise than `claimed` says, to show that the audit finds it.
    `draw_key` gives a new noise key at each call. Raises Refused for fewer than 200 trials, no round, or a claim that is
    not of local privacy.
    """
    if trials < 200 or rounds < 1 or claimed.mechanism != "local" or not 0 < share_of_noise < math.inf:
        raise Refused(
            f"an audit of {claimed.mechanism} privacy with {trials} trials of {rounds} rounds",
            "audit local privacy, with at least 200 trials of 1 round",
        )
    real = PrivacySpec(
        claimed.mechanism, claimed.clip_norm, claimed.noise_multiplier * share_of_noise, 0.0, claimed.delta
    )
    quarter = trials // 4
    one, other = ([projection(real, sign, rounds, draw_key) for _ in range(2 * quarter)] for sign in (1.0, -1.0))
    threshold = best_threshold(one[:quarter], other[:quarter], claimed.delta)
    true = sum(value > threshold for value in one[quarter:])
    false = sum(value > threshold for value in other[quarter:])
    return Verdict(
        4 * quarter, rounds, epsilon_after(claimed, rounds), claimed.delta,
        shown_epsilon(true, false, quarter, claimed.delta), quarter, true, false,
    )  # fmt: skip


def projection(privacy: PrivacySpec, sign: float, rounds: int, draw_key: Callable[[], bytes]) -> float:
    """What the attacker sees of one run: the sum of all its releases along the direction in which neighbours differ."""
    size = sign * BEYOND * privacy.clip_norm / math.sqrt(VALUES)
    directions = [1.0 if index % 2 else -1.0 for index in range(VALUES)]
    update: Float32 = np.array([size * direction for direction in directions], dtype=np.float32)
    seen = []
    for _ in range(rounds):
        noised = Release(lambda: [update], privacy, RING, draw_key()).noised(update)
        seen += [value * direction for value, direction in zip(noised.tolist(), directions, strict=True)]
    return math.fsum(seen)


def best_threshold(one: Sequence[float], other: Sequence[float], delta: float) -> float:
    """The value above which an attacker says `one`, so that these trials, as many of each, show the largest ε."""
    tried = sorted([*one, *other])
    return max(
        tried[:: -(-len(tried) // THRESHOLDS)],
        key=lambda value: shown_epsilon(
            sum(seen > value for seen in one), sum(seen > value for seen in other), len(one), delta
        ),
    )


def shown_epsilon(true: int, false: int, trials: int, delta: float) -> float:
    """The ε that so many hits and false alarms in `trials` each show, at least 0."""
    risk = (1 - CONFIDENCE) / 2
    surely = least_rate(true, trials, risk) - delta
    return max(0.0, math.log(surely / most_rate(false, trials, risk))) if surely > 0 else 0.0


def least_rate(hits: int, trials: int, risk: float) -> float:
    """The lower bound of Clopper and Pearson (1934): below the true rate but for a chance of `risk`."""
    return 1 - most_rate(trials - hits, trials, risk)


def most_rate(hits: int, trials: int, risk: float) -> float:
    """The upper bound of Clopper and Pearson: the rate at which so few hits have a chance of `risk`, rounded up."""
    if hits == trials:
        return 1.0
    low, high = hits / trials, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if chance_of_at_most(hits, trials, middle) > risk else (low, middle)
    return high


def chance_of_at_most(hits: int, trials: int, rate: float) -> float:
    """The binomial distribution function, for a rate strictly between 0 and 1."""
    rest, whole = math.log1p(-rate), math.lgamma(trials + 1)
    return math.fsum(
        math.exp(whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) + k * math.log(rate) + (trials - k) * rest)
        for k in range(hits + 1)
    )
