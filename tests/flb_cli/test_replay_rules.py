# SPDX-License-Identifier: Apache-2.0
"""Rounds of a robust rule over a real port: sealed by the aggregator, and recomputed bit for bit by a stranger."""

import dataclasses
from pathlib import Path

import pytest

from flb.spec_sections import AggregationSpec
from flb_cli.replay import replay
from tests.flb_node.test_download import seal
from tests.served import serve
from tests.sim import DOMAIN, small_spec

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    ("mode", "rule", "mixing"),
    [
        ("alternate", "centered_clipping", "bucketing"),
        ("freeze_a", "trimmed_mean", "nearest_neighbours"),
        ("factors", "multi_krum", "none"),
    ],
)
def test_replay__run_of_a_robust_rule__is_exact(mode: str, rule: str, mixing: str, tmp_path: Path) -> None:
    chosen = AggregationSpec(rule=rule, byzantine=1, mixing=mixing, bucket=2, weights="equal")
    spec = dataclasses.replace(small_spec(mode, down="mxint8", min_nodes=7), aggregation=chosen)
    with serve(tmp_path / "aggregator", spec, nodes=7) as served:
        for _ in range(2):
            seal(served, tmp_path)
        blobs = served.daemon.blobs
        report = replay(served.registry.events, DOMAIN, lambda d: blobs.path(d) if blobs.has(d) else None)
    assert (report.verdict, report.findings, report.unchecked) == ("exact", [], [])
    assert any("2 of 2 adapters were recomputed" in text for text in report.proved)
