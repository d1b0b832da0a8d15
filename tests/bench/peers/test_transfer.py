# SPDX-License-Identifier: Apache-2.0
"""FLB's figures come under the names of the peers' figures."""

import json

import pytest

from bench.peers.transfer import figures
from flb.errors import ChildFailed

pytestmark = pytest.mark.unit


def test_figures__log_around_the_json__leaves_the_first_round_out() -> None:
    told = {
        "round_s": 2.5, "aggregator_peak_rss_mib": 120.4, "node_peak_rss_mib": 200.6,
        "rounds": [{"round_s": 1.0}, {"round_s": 2.0}, {"round_s": 3.0}],
    }  # fmt: skip
    assert figures(f"a warning\n{json.dumps(told)}\nanother\n") == {
        "round_s": 2.0, "median_round_s": 2.5, "rounds": [1.0, 2.0, 3.0], "server_peak_rss_mib": 120,
        "node_peak_rss_mib": 201,
    }  # fmt: skip


@pytest.mark.parametrize("printed", ["", "no JSON", "{}", '{"rounds": []}', "[1]"])
def test_figures__something_else_printed__is_one_sentence(printed: str) -> None:
    with pytest.raises(ChildFailed, match="bench.transfer printed no figures"):
        figures(printed)
