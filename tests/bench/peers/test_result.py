# SPDX-License-Identifier: Apache-2.0
"""A wrong average has no figures; the first round does not count."""

import pytest

from bench.peers.result import result
from flb.errors import ChildFailed

pytestmark = pytest.mark.unit


def test_result__several_processes__are_summed_and_the_largest_node_counts() -> None:
    clients = [{"app": 10.0, "node": 5.0}, {"app": 12.0, "node": 6.0}]
    made = result("X", "1", [1.0, 4.0, 2.0, 9.0], True, {"link": 100.0, "app": 50.0}, clients)
    assert (made["round_s"], made["median_round_s"], made["rounds"]) == (2.0, 4.0, [1.0, 4.0, 2.0, 9.0])
    assert (made["server_peak_rss_mib"], made["client_peak_rss_mib"]) == (150, 18)


def test_result__wrong_average__is_refused() -> None:
    with pytest.raises(ChildFailed, match="the average that X computed is wrong"):
        result("X", "1", [1.0, 1.0], False, {"server": 1.0}, [{"node": 1.0}])
