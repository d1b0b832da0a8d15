# SPDX-License-Identifier: Apache-2.0
"""Whether a budget leaves anything to learn from: noise over signal of one round's mean, and what would change it.

The noise of the mean of m updates has a norm of about z·C·√P/m where the aggregator adds it once, and σ√(P/m) where each
node adds its own; the signal is at most C. As a rule of thumb, up to 10 trains and above 100 does not.
"""

import math
from dataclasses import dataclass

from flb.errors import Refused
from flb.privacy.accountant import noise_multiplier_for

TRAINS, HOPELESS = 10.0, 30.0
"""Up to the first a run usually learns; above the second it is refused unless it is asked for."""


@dataclass(frozen=True, slots=True)
class Lever:
    """One change, and the ratio that it would give."""

    change: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """`ratio` of noise to signal in one round; `levers` are changes, the strongest first."""

    ratio: float
    levers: tuple[Lever, ...]

    @property
    def verdict(self) -> str:
        """`trains`, `doubtful` or `hopeless`."""
        return "trains" if self.ratio <= TRAINS else "doubtful" if self.ratio <= HOPELESS else "hopeless"


def local_ratio(noise_multiplier: float, parameters: int, cohort: int) -> float:
    """√(P/m) · σ/C: each of m nodes adds noise of σ = `noise_multiplier` · C to P values."""
    return noise_multiplier * math.sqrt(parameters / cohort)


def central_ratio(noise_multiplier: float, parameters: int, cohort: int) -> float:
    """z · √P / m: noise of zC is added once to the sum of m updates."""
    return noise_multiplier * math.sqrt(parameters) / cohort


def forecast(*, epsilon: float, delta: float, rounds: int, parameters: int, cohort: int, local: bool) -> Forecast:
    """What a budget for the whole run does to one round, everybody taking part in each.

    Local noise answers for the replacement of an update, a sensitivity of 2C; central noise for leaving one out, C.
    Raises Refused for a model, cohort or run of nothing, and as `noise_multiplier_for`.
    """
    if min(parameters, cohort, rounds) < 1:
        raise Refused(f"{parameters} parameters, {cohort} nodes, {rounds} rounds", "choose at least 1 of each")

    def ratio(
        parameters: int = parameters, cohort: int = cohort, rounds: int = rounds, epsilon: float = epsilon,
        local: bool = local,
    ) -> float:  # fmt: skip
        multiplier = noise_multiplier_for(epsilon, delta, rounds)
        return (
            local_ratio(2 * multiplier, parameters, cohort) if local else central_ratio(multiplier, parameters, cohort)
        )

    levers = [
        Lever("ten times the nodes", ratio(cohort=10 * cohort)),
        Lever(
            "a tenth of the parameters: fewer target modules, a lower rank, or mode freeze_a",
            ratio(-(-parameters // 10)),
        ),
        Lever("a quarter of the rounds, with more local steps in each", ratio(rounds=max(1, rounds // 4))),
        Lever("twice the epsilon", ratio(epsilon=2 * epsilon)),
    ]
    if local:
        levers.append(Lever("noise added once by a trusted aggregator", ratio(local=False)))
    return Forecast(ratio(), tuple(sorted(levers, key=lambda lever: lever.ratio)))


def refuse_hopeless(found: Forecast, override: bool = False, setting: str = "client.accept_noise") -> None:
    """Raise Refused, with the two strongest levers, where the noise is above `HOPELESS` times the signal. `setting`
    overrides it."""
    if found.ratio > HOPELESS and not override:
        best = " or ".join(f"{lever.change} ({lever.ratio:.3g})" for lever in found.levers[:2])
        raise Refused(
            f"the noise of this budget is {found.ratio:.3g} times the signal, so the run would learn nothing",
            f"change one of these: {best}, or set {setting}: true",
        )
