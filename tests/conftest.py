# SPDX-License-Identifier: Apache-2.0
"""Exactly one mark a test; unit tests open no socket; in CI a skip is a failure; the same examples every time."""

import os
import socket
from typing import Any

import grpc
import pytest
from hypothesis import settings

import flb.chain  # noqa: F401 - restores the recursion limit that a library of eth-account lifts, whatever a test imports

MARKS = {"unit", "chain", "e2e", "model"}
NETWORK = (
    *((socket.socket, name) for name in ("connect", "connect_ex", "bind", "listen", "sendto", "sendmsg")),
    *((grpc, name) for name in ("server", "insecure_channel", "secure_channel")),
    *((grpc.aio, name) for name in ("server", "insecure_channel", "secure_channel")),
)
"""Where a process reaches for the network; gRPC opens its sockets in C. Pairs, as asyncio makes them, are no network."""

settings.register_profile("flb", deadline=None, derandomize=True, max_examples=100, print_blob=True)
settings.register_profile("full", deadline=None, derandomize=False, max_examples=1_000, print_blob=True)
settings.load_profile("full" if os.environ.get("FLB_FULL") else "flb")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a test without exactly one of our marks."""
    for item in items:
        found = MARKS & {mark.name for mark in item.iter_markers()}
        if len(found) != 1:
            raise pytest.UsageError(
                f"{item.nodeid} has the marks {sorted(found)}; give it exactly one of {sorted(MARKS)}"
            )


def _no_skip_in_ci(report: Any) -> Any:
    """In CI nothing may be skipped: a test that did not run proves nothing."""
    if report.skipped and os.environ.get("CI") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """A test that skips, or is marked so."""
    return _no_skip_in_ci((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """A whole file that skips, as `importorskip` at its top does."""
    return _no_skip_in_ci((yield))


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Commands of tests, and of the processes that they start, leave nothing in the user's state folder."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def no_sockets_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that reaches for the network fails."""
    if request.node.get_closest_marker("unit"):

        def refuse(*_: Any, **__: Any) -> None:
            raise AssertionError("a unit test opens a socket; mark it chain or e2e, or give it a port in memory")

        for owner, name in NETWORK:
            monkeypatch.setattr(owner, name, refuse)
