# SPDX-License-Identifier: Apache-2.0
"""The demo's trouble without processes: when it counts as overcome, what is said of it, and one bit there and back."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from flb_cli.demo import succeeded
from flb_cli.demo_trouble import MASK, Ambush, flipped, spooled
from flb_cli.demo_view import in_trouble
from flb_cli.federation import Federation

pytestmark = pytest.mark.unit

KILL: dict[str, Any] = {"round": 2, "node": "0xaa", "byte": 1_048_576, "size": 9_823_408, "went_on": True}
TAMPER: dict[str, Any] = {
    "round": 3, "node": "0xbb", "tensor": "layers.1", "byte": 7, "named": True, "findings": [], "restored": "exact",
}  # fmt: skip


def arguments(*asked: str) -> argparse.Namespace:
    return argparse.Namespace(kill="kill" in asked, tamper="tamper" in asked)


@pytest.mark.parametrize(
    ("asked", "result", "good"),
    [
        ((), {"verify": "exact"}, True),
        ((), {"verify": "certified"}, True),
        ((), {"verify": "partial"}, False),
        (("kill",), {"verify": "exact", "kill": KILL}, True),
        (("kill",), {"verify": "fail", "kill": KILL}, False),
        (("kill",), {"verify": "exact", "kill": None}, False),
        (("kill",), {"verify": "exact", "kill": {**KILL, "went_on": False}}, False),
        (("tamper",), {"verify": "exact", "tamper": TAMPER}, True),
        (("tamper",), {"verify": "exact", "tamper": {**TAMPER, "named": False}}, False),
        (("tamper",), {"verify": "exact", "tamper": {**TAMPER, "restored": "fail"}}, False),
        (("kill", "tamper"), {"verify": "exact", "kill": KILL, "tamper": TAMPER}, True),
    ],
)
def test_succeeded__what_was_asked__must_have_come_and_been_overcome(
    asked: tuple[str, ...], result: dict[str, Any], good: bool
) -> None:
    assert succeeded(arguments(*asked), result) is good


def test_in_trouble__nothing_asked__says_nothing() -> None:
    assert list(in_trouble({"verify": "exact"})) == []


def test_in_trouble__both__names_byte_round_node_and_tensor() -> None:
    lines = dict(in_trouble({"kill": KILL, "tamper": TAMPER}))
    assert lines["kill"] == "round 2: at byte 1,048,576 of 9,823,408; the upload went on from there"
    assert lines["tamper"] == "one bit of an update; verify named round 3, node 0xbb, layers.1"
    assert lines["restored"] == "the bit is put back: exact"


def test_in_trouble__no_upload_was_caught__says_so() -> None:
    assert "no upload could be interrupted" in dict(in_trouble({"kill": None}))["kill"]


def test_flipped__block__one_bit_differs_inside_and_none_after(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(bytes(range(10)))
    with flipped(path, 4):
        assert path.read_bytes() == bytes([0, 1, 2, 3, 4 ^ MASK, 5, 6, 7, 8, 9])
    assert path.read_bytes() == bytes(range(10))


def test_flipped__block_that_raises__puts_the_bit_back(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"abc")
    with pytest.raises(ValueError, match="in between"), flipped(path, 1):
        raise ValueError("in between")
    assert path.read_bytes() == b"abc"


def test_spooled__no_folder_yet__is_none(tmp_path: Path) -> None:
    assert spooled(tmp_path / "spool") == []


@pytest.fixture
def ambush(tmp_path: Path) -> Iterator[Ambush]:
    """In wait for updates of 100 bytes; the aggregator is any process."""
    with Federation(tmp_path, tmp_path, (), {}, tmp_path) as federation:
        federation.spawn_command("aggregator", ["sleep", "60"])
        yield Ambush(federation, lambda text: None, least=100)


def stands_still(ambush: Ambush) -> bool:
    process = psutil.Process(ambush.federation.children["aggregator"].process.pid)
    return bool(process.status() == psutil.STATUS_STOPPED)


def test_caught__half_an_update__stands_still_until_the_end(ambush: Ambush, tmp_path: Path) -> None:
    path = tmp_path / "1-00-aa-bb"
    path.write_bytes(bytes(99))
    assert ambush.caught(path) and ambush.held == 99 and stands_still(ambush)
    assert ambush.end() is None and not stands_still(ambush), "it was not killed, so it goes on"


@pytest.mark.parametrize("size", [0, 100])
def test_caught__nothing_yet_or_all__goes_on(ambush: Ambush, tmp_path: Path, size: int) -> None:
    path = tmp_path / "1-00-aa-bb"
    path.write_bytes(bytes(size))
    assert not ambush.caught(path) and not stands_still(ambush)
    ambush.strike()
    assert ambush.federation.children["aggregator"].process.poll() is None
    assert ambush.end() is None


def test_caught__update_admitted_meanwhile__goes_on(ambush: Ambush, tmp_path: Path) -> None:
    assert not ambush.caught(tmp_path / "gone") and not stands_still(ambush)
