# SPDX-License-Identifier: Apache-2.0
"""Deeply nested JSON of a peer is an error, not a crash, whatever libraries a process has loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
NESTED = """
import json, sys
try:
    json.loads("[" * 1_000_000)
except RecursionError:
    print("refused", sys.getrecursionlimit())
"""


@pytest.mark.parametrize(
    "loaded",
    [
        "import flb.chain.rpc, flb.chain.sender, flb_aggregator.app, flb_node.app",
        "from flb import keystore; keystore._eth_keyfile()",
    ],
    ids=["shells", "keystore alone"],
)
def test_recursion_limit__after_the_chain_libraries__still_refuses_deep_json(loaded: str) -> None:
    code = f"import sys\n{loaded}\n{NESTED}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "refused 1000\n"), done.stderr
