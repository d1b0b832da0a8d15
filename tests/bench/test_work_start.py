# SPDX-License-Identifier: Apache-2.0
"""The bench of the start of work measures every round but the first, with the product's node and aggregator."""

import pytest

from bench.work_start import measure

pytestmark = pytest.mark.e2e


def test_measure__three_rounds__one_figure_for_each_after_the_first() -> None:
    taken = measure(2)
    assert len(taken) == 2 and min(taken) > 0
