# SPDX-License-Identifier: Apache-2.0
"""A new certificate while real nodes are connected, and after kills in the middle of it: no round is lost."""

import signal

import pytest

from flb.types import ZERO_DIGEST
from flb_cli.federation import Federation
from tests.e2e.conftest import Make

pytestmark = pytest.mark.e2e


def kill(federation: Federation) -> None:
    """End the aggregator as a power cut would."""
    child = federation.children["aggregator"].process
    child.kill()
    child.wait(10)


def test_rotation__asked_by_a_signal_and_by_a_file_across_a_kill__loses_no_round(make: Make) -> None:
    with make("rotation") as federation:
        federation.settings = {**federation.settings, "run": {**federation.settings["run"], "steps": 3}}
        federation.start()
        view = federation.await_view(lambda view: bool(view.uri), 30)
        first = view.cert_digest
        assert first != ZERO_DIGEST and not view.uri.startswith("http")
        federation.children["aggregator"].process.send_signal(signal.SIGHUP)
        view = federation.await_view(lambda view: view.cert_digest != first and view.next_cert_digest == ZERO_DIGEST)
        second = view.cert_digest

        kill(federation)
        folder = federation.folder / "aggregator" / "tls"
        (folder / "rotate").touch()
        federation.spawn("aggregator")
        view = federation.await_view(lambda view: view.cert_digest != second and view.next_cert_digest == ZERO_DIGEST)
        assert sorted(path.name for path in folder.iterdir()) == ["current.pem"]

        federation.await_view(lambda view: view.finished, 120)
        for name, child in federation.children.items():
            if name.startswith("node-"):
                assert child.process.wait(60) == 0, child.last_line()
                assert len(list((federation.folder / name).glob("receipt-*.json"))) == 3
