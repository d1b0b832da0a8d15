# SPDX-License-Identifier: Apache-2.0
"""Accounting of sampled rounds in a short-lived child process: scipy's 65 MiB go with it."""

import json
import subprocess
import sys
from functools import lru_cache

from flb.errors import ChildFailed, MissingTool, Refused
from flb.privacy import accountant

SECONDS = 120.0


def epsilon_of_rounds(*, noise_multiplier: float, sampling_rate: float, rounds: int, delta: float) -> float:
    """As `flb.privacy.accountant.epsilon_of_rounds`, without its memory. Raises MissingTool
    without the extra `dp`, and ChildFailed where the child broke."""
    if not 0 < sampling_rate < 1 or rounds < 1 or not 0 < delta < 1 or not noise_multiplier > 0:
        return accountant.epsilon_of_rounds(
            noise_multiplier=noise_multiplier, sampling_rate=sampling_rate, rounds=rounds, delta=delta
        )
    return epsilon_of_releases(((noise_multiplier, sampling_rate, rounds),), delta)


@lru_cache(maxsize=64)
def epsilon_of_releases(releases: tuple[tuple[float, float, int], ...], delta: float) -> float:
    """ε of several kinds of releases together: noise multiplier, sampling rate, number. Raises as `epsilon_of_rounds`."""
    return asked("epsilon", list(releases), delta)


@lru_cache(maxsize=64)
def noise_multiplier_for(sampling_rate: float, rounds: int, epsilon: float, delta: float, least: float) -> float:
    """A noise multiplier from `least` on whose sampled releases stay within (ε, δ). Raises as `epsilon_of_rounds`, and Refused where none
    does."""
    return asked("multiplier", sampling_rate, rounds, epsilon, delta, least)


def asked(*question: object) -> float:
    """The answer of `flb.privacy.sampled` in a child."""
    command = [sys.executable, "-m", "flb.privacy.sampled", json.dumps(question)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise ChildFailed("the privacy accountant gave no answer", "install 'flb[dp]' anew and try again") from error
    if "missing" in answer:
        raise MissingTool(*answer["missing"])
    if "refused" in answer:
        raise Refused(*answer["refused"])
    return float(answer["answer"])
