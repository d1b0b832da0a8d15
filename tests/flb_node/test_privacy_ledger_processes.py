# SPDX-License-Identifier: Apache-2.0
"""The ledger on disk, shared by processes and whole after a kill."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flb.privacy.ledger import Charge
from flb.types import Address, Digest, Step
from flb_node.privacy_ledger import PrivacyLedger

pytestmark = pytest.mark.e2e

RECORDS = (b"one", b"two")


def charge(step: int) -> Charge:
    return Charge(Address(b"\x01" * 20), Step(step), Digest(bytes(32)), step.to_bytes(16, "big"), 0.5)


def _charge_some(folder: Path, first: int) -> None:
    for step in range(first, first + 10):
        PrivacyLedger(folder, RECORDS).charge(charge(step), 0.0, 1e-5)


def test_ledger__several_processes_from_the_start__lose_no_charge(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_charge_some, args=(tmp_path, 100 * number + 1)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    steps = {int(item.step) for item in PrivacyLedger(tmp_path, RECORDS).charges()}
    assert steps == {100 * number + step for number in range(3) for step in range(1, 11)}


KILLED = """
import sys
from pathlib import Path
from flb.privacy.ledger import Charge
from flb.types import Address, Digest, Step
from flb_node.privacy_ledger import PrivacyLedger

ledger = PrivacyLedger(Path(sys.argv[1]), (b"one", b"two"))
step = len(ledger.charges())
while True:
    step += 1
    ledger.charge(Charge(Address(b"\\1" * 20), Step(step), Digest(bytes(32)), step.to_bytes(16, "big"), 0.5), 0.0, 1e-5)
    print(step, flush=True)
"""


def test_ledger__killed_at_any_moment__holds_every_charge_that_was_told(tmp_path: Path) -> None:
    told = 0
    for lines in (1, 3, 7):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        for _ in range(lines):
            told = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        told = max([told, *(int(line) for line in child.stdout.read().split())])
        child.stdout.close()
        child.wait()
        steps = [int(item.step) for item in PrivacyLedger(tmp_path, RECORDS).charges()]
        assert steps == list(range(1, len(steps) + 1)) and len(steps) in (told, told + 1)
