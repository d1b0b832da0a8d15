# SPDX-License-Identifier: Apache-2.0
"""FedYogi: its second moment moves by (1 - β₂)·D² at most, and stays above zero."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.server_optimizer.constants import Constants
from tests.optimizing import started, steps

pytestmark = pytest.mark.unit

C = Constants(0.1, 0.9, 0.99, 2.0**-10)


@given(st.lists(st.floats(-4.0, 4.0, width=32), min_size=1, max_size=30))
def test_step__any_means__second_moment_moves_within_its_bound(means: list[float]) -> None:
    before = started("yogi", 1, C.tau)[0, 1]
    for count in range(1, len(means) + 1):
        after = steps("yogi", [np.full(1, mean) for mean in means[:count]], C)[1][0, 1]
        square = means[count - 1] ** 2
        assert abs(after - before) <= (1 - C.beta2) * square + np.spacing(max(before, after))
        assert after > 0
        assert (after - before) * np.sign(square - before) >= 0
        before = after


def test_step__tau_to_zero__first_step_is_the_rate_times_the_sign() -> None:
    mean = np.array([1.0, -1.0, 2.0**-20])
    (first,), _ = steps("yogi", [mean], C._replace(tau=0.0))
    assert first == pytest.approx(0.1 * np.sign(mean), rel=2e-15)


def test_step__updates_become_small__falls_more_slowly_than_adam() -> None:
    means = [np.ones(1)] * 3 + [np.full(1, 2.0**-10)] * 100
    yogi, adam = (steps(name, means, C)[1][0, 1] for name in ("yogi", "adam"))
    assert yogi > 2 * adam
