# SPDX-License-Identifier: Apache-2.0
"""A node that is killed at any moment under local privacy: one key, one charge and one update for each step."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flb.types import Step
from flb_node.local_privacy import LocalPrivacy
from tests.sim import DOMAIN

pytestmark = pytest.mark.e2e

STEPS = 12
NODE = """
import sys
from pathlib import Path
from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import pipeline
from tests.flb_node.private_runs import private_spec
from flb_node.local_privacy import LocalPrivacy
from tests.sim import DOMAIN, members

root = Path(sys.argv[1])
spec, blobs = private_spec(steps=int(sys.argv[2])), BlobStore(root / "blobs", sweep=True)
privacy = LocalPrivacy(DOMAIN.run, root, root / "ledgers", lambda: (b"one", b"two"))
base = make_adapter_zero(spec.tensors, 0, blobs)
print("ready", flush=True)
for step in range(1, spec.rounds.steps + 1):
    sealed = pipeline.seal_update(
        spec, Step(step), base, run=DOMAIN.run, node=members(1)[0].node, secret=bytes(32), blobs=blobs, folder=root,
        train=lambda adapter, names, seed, step: {name: value + 1 for name, value in adapter.items()}, privacy=privacy,
    )
    print(step, sealed.digest.hex(), flush=True)
"""


def test_node__killed_again_and_again__pays_once_for_each_step_and_never_seals_two_updates(tmp_path: Path) -> None:
    told: dict[int, str] = {}
    for life in range(60):
        child = subprocess.Popen(
            [sys.executable, "-c", NODE, str(tmp_path), str(STEPS)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(0.003 * (life % 10))
        if life < 59:
            os.kill(child.pid, signal.SIGKILL)
        lines = [line.split() for line in child.stdout.read().splitlines() if len(line.split()) == 2]
        child.stdout.close()
        ended = child.wait()
        for step, digest in lines:
            if len(digest) == 64:
                assert told.setdefault(int(step), digest) == digest, "what was told once is sealed for good"
        if ended == 0:
            break
    assert sorted(told) == list(range(1, STEPS + 1))
    ledger = LocalPrivacy(DOMAIN.run, tmp_path, tmp_path / "ledgers", lambda: (b"two", b"one")).ledger()
    assert sorted(charge.step for charge in ledger.charges()) == list(range(1, STEPS + 1))
    assert len({charge.key for charge in ledger.charges()}) == STEPS
    assert list(tmp_path.glob("noise-*.key")) == []
    notes = {Step(json.loads(path.read_bytes())["step"]) for path in tmp_path.glob("step-*.json")}
    assert len(notes) == STEPS
