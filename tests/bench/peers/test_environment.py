# SPDX-License-Identifier: Apache-2.0
"""Environments are made once, and a failure is one sentence."""

from pathlib import Path

import pytest

from bench.peers import environment
from flb.errors import MissingTool

pytestmark = pytest.mark.e2e


def test_ensure__made_before__is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = environment.ensure(tmp_path, "peer", ("pip",))
    capsys.readouterr()
    assert environment.ensure(tmp_path, "peer", ("pip",)) == python
    assert capsys.readouterr().err == ""


def test_ensure__package_that_cannot_be_installed__names_the_peer_and_the_remedy(tmp_path: Path) -> None:
    absent = tmp_path / "absent-1-py3-none-any.whl"
    with pytest.raises(MissingTool, match="environment of peer could not be made.*check that pip"):
        environment.ensure(tmp_path, "peer", (str(absent),))
