# SPDX-License-Identifier: Apache-2.0
"""Keywords are keys of config.yaml, checked like them."""

from pathlib import Path

import pytest

from flb.errors import ConfigError
from flb_node.attach_settings import read

pytestmark = pytest.mark.unit

RUN = "0x" + "ab" * 20


def test_read__address_and_keywords__a_whole_config(tmp_path: Path) -> None:
    config = read(RUN, {"rpc": "http://127.0.0.1:1", "keystore": tmp_path / "k.json", "keep_steps": 3})
    assert (config.chain.run, config.chain.rpc) == (RUN, "http://127.0.0.1:1")
    assert (config.client.keystore, config.client.keep_steps) == (tmp_path / "k.json", 3)


def test_read__file_and_keyword__the_keyword_wins(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"chain: {{run: '{RUN}'}}\nclient: {{keep_steps: 5, workdir: here}}\n")
    config = read(str(path), {"keep_steps": 1})
    assert (config.client.keep_steps, config.client.workdir, config.chain.run) == (1, tmp_path / "here", RUN)


@pytest.mark.parametrize(
    ("run", "settings", "named"),
    [
        (RUN, {"keystor": "x"}, "did you mean keystore?"),
        (RUN, {"keep_steps": 0}, "client.keep_steps is 0"),
        (RUN, {"relay": "perhaps"}, "client.relay is 'perhaps'"),
        ("nowhere.yaml", {}, "nowhere.yaml does not exist"),
    ],
)
def test_read__bad_setting__named(run: str, settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read(run, settings)
