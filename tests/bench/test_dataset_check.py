# SPDX-License-Identifier: Apache-2.0
"""The bench of the dataset check runs, and prints what docs/data.md quotes."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


def test_dataset_check__few_records__counts_them_and_says_what_it_took() -> None:
    command = [sys.executable, "-m", "bench.dataset_check", "--records", "10", "200", "--json"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [line["records"] for line in said["checks"]] == [10, 200]
    assert all(line["peak_rss_mib"] > 10 and line["seconds"] > 0 for line in said["checks"])
