# SPDX-License-Identifier: Apache-2.0
"""Real nodes follow a run by its encoded steps, and `flb verify` recomputes every one of them."""

import dataclasses
import os

import pytest

from flb import records
from tests.e2e.conftest import Make
from tests.e2e.test_federation import verify

pytestmark = pytest.mark.e2e


# CI skips no test, so what takes half a minute is not defined where it is not asked for
if os.environ.get("FLB_FULL"):

    def test_run__steps_travel_encoded__nodes_follow_and_verify_is_exact(make: Make) -> None:
        whole = make("down")
        settings = {**whole.settings, "run": {**whole.settings["run"], "down": "mxint8"}}
        with dataclasses.replace(whole, settings=settings) as federation:
            federation.start()
            federation.await_view(lambda view: view.finished, 120)
            for name, child in federation.children.items():
                if name.startswith("node-"):
                    child.process.wait(60)
            federation.write_events()
            view = federation.view()
            made = [
                records.decode((federation.folder / "aggregator" / "blobs" / roll.record_digest.hex()).read_bytes())
                for roll in view.rolls
            ]
            for index in (1, 2, 3):
                blobs = federation.folder / f"node-{index}" / "blobs"
                assert (blobs / view.adapter.hex()).exists()
                assert (blobs / made[-1].down.hex()).exists(), "the last adapter came as a step"
                assert "cannot be used" not in (federation.folder / f"node-{index}.log").read_text()
            code, report = verify(federation.folder)
        assert (code, report["verdict"], report["unchecked"], len(report["rounds"])) == (0, "exact", [], 2)
