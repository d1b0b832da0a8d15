# SPDX-License-Identifier: Apache-2.0
"""Settings of a simulated run: config.yaml with changes from the command line, and what simulation asks of them."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flb import config_file
from flb.config import Config, require
from flb.errors import ConfigError

KEY = re.compile(r"\w+(\.\w+)*", re.ASCII)


def read(path: Path, changes: Sequence[str]) -> Config:
    """The file at `path`, with changes KEY=VALUE in their order; KEY is written with dots, VALUE as in the file.

    A path in a change counts from the working folder, as everywhere on a command line. Raises ConfigError.
    """
    config = config_file.load(path)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or not KEY.fullmatch(key) or len(value.splitlines()) > 1:
            raise ConfigError(f"--set {change} is no KEY=VALUE", "write, for example, --set training.local_steps=5")
        above, lines = key.split("."), []
        for depth, name in enumerate(above):
            lines.append(f"{'  ' * depth}{name}:")
        lines[-1] += f" {value}"
        changed = config_file.parse("\n".join(lines) + "\n", Path("--set"))
        config = _replaced(config, changed, above)
    return config


def _replaced(section: Any, changed: Any, key: Sequence[str]) -> Any:
    """`section` with the value that `changed` has at `key`."""
    value = getattr(changed, key[0])
    if len(key) > 1:
        value = _replaced(getattr(section, key[0]), value, key[1:])
    return dataclasses.replace(section, **{key[0]: value})


def with_server_privacy(config: Config, wanted: str | None) -> Config:
    """The settings with `--use-server-dp true` or `false`; None changes nothing. What central privacy needs comes with it."""
    if wanted is None:
        return config
    if wanted == "false":
        return dataclasses.replace(config, privacy=dataclasses.replace(config.privacy, central="none"))
    central = "fixed" if config.privacy.central == "none" else config.privacy.central
    equal = dataclasses.replace(config.run.aggregation, weights="equal")
    return dataclasses.replace(
        config,
        privacy=dataclasses.replace(config.privacy, central=central),
        run=dataclasses.replace(config.run, aggregation=equal),
    )


def check(config: Config) -> int:
    """What no simulated run can do without, and what none can do; returns the number of nodes. Raises ConfigError."""
    nodes: int = require(config.num_clients, "num_clients", "say how many nodes flb simulate makes")
    if config.chain_record:
        raise ConfigError(
            "chain_record is true, and flb simulate records on no chain in this version", "set chain_record: false"
        )
    if config.client.processes > 1:
        raise ConfigError(
            f"client.processes is {config.client.processes}, and flb simulate trains in one", "leave it out"
        )
    for key in ("lm_eval_tasks", "report_to"):
        if getattr(config.client, key):
            raise ConfigError(f"client.{key} is set, and flb simulate reports to report.json alone", "leave it out")
    if nodes < config.run.min_nodes:
        raise ConfigError(
            f"num_clients is {nodes}, and a round needs run.min_nodes: {config.run.min_nodes}",
            "raise one, or lower the other",
        )
    return nodes
