# SPDX-License-Identifier: Apache-2.0
"""What docs/aggregation.md says about rules under attack, on one seed: the recommended rules hold where the mean does not."""

import pytest

from bench.robustness import RULES, accuracy

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("attack", ["none", "IPM 2", "Gauss 10"])
@pytest.mark.parametrize("rule", ["buckets of 2, centered clipping", "norm bound"])
def test_accuracy__recommended_rule__holds(rule: str, attack: str) -> None:
    assert accuracy(RULES[rule], attack, 0, 200) >= 0.86


def test_accuracy__mean_under_noise__falls() -> None:
    honest = accuracy(RULES["mean"], "none", 0, 200)
    assert honest > 0.94 and accuracy(RULES["mean"], "Gauss 10", 0, 200) < honest - 0.1


def test_accuracy__same_seed__is_the_same() -> None:
    chosen = RULES["neighbours, trimmed mean"]
    assert accuracy(chosen, "Gauss 10", 1, 5) == accuracy(chosen, "Gauss 10", 1, 5)
