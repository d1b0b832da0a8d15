# SPDX-License-Identifier: Apache-2.0
"""What `flb_node.attach` was told: a config file, or a run's address and keywords, as one `Config`."""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from flb.config import ChainConfig, ClientConfig, Config, keys
from flb.config_file import load, parse
from flb.errors import ConfigError

ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
SECTIONS = {
    **dict.fromkeys(keys(ClientConfig), "client"),
    **dict.fromkeys(keys(ChainConfig), "chain"),
    "model_path": "model",
}
"""Where each keyword stands in config.yaml."""


def read(run: str, settings: dict[str, Any]) -> Config:
    """The file `run`, or the run at that address, with `settings` on top. Raises ConfigError as for a file."""
    written: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in SECTIONS:
            near = difflib.get_close_matches(name, SECTIONS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
            raise ConfigError(f"attach has no setting {name}", meant)
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
        written.setdefault(SECTIONS[name], {})[name] = plain
    by_address = ADDRESS.fullmatch(run)
    if by_address:
        written.setdefault("chain", {})["run"] = run
    given = parse(yaml.safe_dump(written, sort_keys=False), Path.cwd() / "attach(...)")
    if by_address:
        return given
    config = load(Path(run))
    for section, values in written.items():
        changed = {name: getattr(getattr(given, section), name) for name in values}
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **changed)})
    return config
