# SPDX-License-Identifier: Apache-2.0
"""The aggregator's disk is full in the middle of a run: nobody ends, and the run goes on once there is space again.

The disk is a small tmpfs that the test mounts; where that is not allowed there is no such disk, and no such test.
"""

import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flb.types import Digest
from tests.e2e.chaos.conftest import Chaos
from tests.e2e.chaos.disturbed import Disturbed

pytestmark = pytest.mark.e2e

SIZE = 96 << 20
FULL_SECONDS = 3.0
"""Longer than a node waits between two tries."""


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """A file system of SIZE bytes at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def may_mount() -> bool:
    """Whether this user may mount a file system here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder) / "probe"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def fill(folder: Path) -> Path:
    """Take all the space that is left."""
    path = folder / "filler"
    for block in (bytes(1 << 20), bytes(4096)):
        with path.open("ab", buffering=0) as file, pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            while file.write(block) == len(block):
                pass
            file.write(block)
    return path


def full_from_round(run: Disturbed, number: int) -> None:
    """Fill the aggregator's disk while a round is open; make space again after a while."""
    run.until(lambda view: view.opening is not None and view.opening.round == number)
    filler = fill(run.federation.folder / "aggregator")
    deadline = time.monotonic() + FULL_SECONDS
    while time.monotonic() < deadline:
        run.mend()
        time.sleep(0.1)
    assert run.federation.view().opening.round == number, "a round was sealed on a full disk"  # type: ignore[union-attr]
    filler.unlink()


if may_mount():

    def test_run__aggregator_s_disk_full_for_a_while__ends_with_the_same_adapters(
        chaos: Chaos, reference: list[Digest]
    ) -> None:
        with chaos("disk", training_seconds=1.0) as run, disk(run.federation.folder / "aggregator"):
            run.start()
            full_from_round(run, 2)
            run.finish()
            run.check(reference)
            assert run.deaths == []
            run.federation.stop()  # before the disk is gone
