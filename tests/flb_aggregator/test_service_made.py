# SPDX-License-Identifier: Apache-2.0
"""Killed between publishing and journalling, on a machine whose sums come out otherwise next time: the chain gets the
adapter that was published."""

import threading
from pathlib import Path
from typing import Any

import pytest

from flb.records import Roll
from flb_aggregator import outcome
from flb_aggregator.made import Blobs
from tests.flb_aggregator.test_service import deliver, update
from tests.flb_node.test_download import sealed
from tests.product_rounds import product_spec
from tests.served import serve
from tests.sim import key_for

pytestmark = pytest.mark.e2e


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_run__killed_after_publishing__rolls_what_was_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, published, delivered = outcome.make, list[Roll](), threading.Event()

    def killed(*arguments: Any) -> Roll:
        published.append(make(*arguments))
        delivered.wait(20)  # the last node has its receipt
        raise RuntimeError("killed")

    monkeypatch.setattr(outcome, "make", killed)
    with serve(tmp_path / "aggregator", product_spec()) as first:
        for member in first.opening().cohort:
            manifest, blob = update(first, member)
            deliver(first.uplink(member), manifest, blob, tmp_path, key_for(member))
        first.await_true(lambda: published)
        assert first.daemon.view.rolls == ()
        delivered.set()
    monkeypatch.setattr(outcome, "make", make)
    other = first.daemon.blobs.put(b"another sum of the same numbers")
    monkeypatch.setattr(outcome, "blobs_of", lambda *_: Blobs(other))
    with serve(tmp_path / "aggregator", first.spec, first.registry) as second:
        second.await_true(lambda: second.daemon.view.rolls)
        assert sealed(second).adapter == published[0].adapter_digest != other
        (folder,) = (tmp_path / "aggregator" / "adapters").iterdir()
        weights = (folder / "adapter_model.safetensors").read_bytes()
        assert second.daemon.blobs.get(published[0].adapter_digest) == weights
