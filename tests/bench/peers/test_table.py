# SPDX-License-Identifier: Apache-2.0
"""One form of row for every system, ratios to the first."""

import pytest

from bench.peers.table import rows, table

pytestmark = pytest.mark.unit

FLOWER = {"version": "1.0", "round_s": 90.0, "median_round_s": 100.0, "rounds": [], "server_peak_rss_mib": 3000,
          "client_peak_rss_mib": 1000}  # fmt: skip
FLB = {"round_s": 3.0, "server_peak_rss_mib": 300, "node_peak_rss_mib": 200}


def test_rows__with_flb__stands_first_and_all_name_the_node_alike() -> None:
    first, second = rows({"nodes": 4, "flower": FLOWER, "flb": FLB})
    assert (first["name"], second["name"]) == ("FLB", "Flower 1.0")
    assert (first["node_peak_rss_mib"], second["node_peak_rss_mib"]) == (200, 1000)


def test_table__two_systems__shows_ratios_to_the_first_and_a_dash_for_what_is_missing() -> None:
    _, _, first, second = table({"flower": FLOWER, "flb": FLB}).splitlines()
    assert [cell.strip() for cell in first.strip("|").split("|")] == ["FLB", "3.00", "–", "300", "200"]
    assert [cell.strip() for cell in second.strip("|").split("|")] == [
        "Flower 1.0", "90.00 (×30.0)", "100", "3,000 (×10.0)", "1,000 (×5.0)",
    ]  # fmt: skip


def test_table__one_peer_alone__has_no_ratio() -> None:
    assert "×" not in table({"flower": FLOWER})
