# SPDX-License-Identifier: Apache-2.0
"""`flb scores` and `flb claim`: where records may come from. What they say of a run is in tests/e2e and tests/chain."""

import argparse
from pathlib import Path

import pytest

from flb.errors import ConfigError
from flb_cli.scores import found

pytestmark = pytest.mark.unit


def test_found__folder_without_blobs__is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    arguments = argparse.Namespace(run_name="0x" + "11" * 20, rpc="http://127.0.0.1:1", blobs=tmp_path)
    with pytest.raises(ConfigError, match="holds no blobs: give the work folder of a node"):
        found(arguments, tmp_path)
