# SPDX-License-Identifier: Apache-2.0
"""The data of a simulated run: one dataset, what is held out of it, and the part of each node."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flb import partition
from flb.config import Config, require
from flb.errors import ConfigError
from flb.partition import Partition, by_column, by_size, dirichlet, iid
from flb.types import Digest
from flb_node import data, dataset_source, evaluation
from flb_node.evaluation import HeldOut
from flb_node.examples import Example


@dataclass(frozen=True, slots=True)
class Dealt:
    """The examples of each node, in the order of their numbers; `digest` is the partition's."""

    parts: tuple[tuple[Example, ...], ...]
    held_out: HeldOut
    digest: Digest


def deal(config: Config, folder: Path, nodes: int) -> Dealt:
    """Read, hold out, deal. `folder` is the config file's.

    Raises ConfigError and DatasetError for settings and data that do not fit, Refused for a node without a record.
    """
    source = dataset_source.of_config(config, folder)
    every = data.read(source)
    examples, held_out = evaluation.read(config.client, every, source.columns)
    values: tuple[str, ...] = ()
    if config.partition.way in ("by_column", "dirichlet"):
        why = f"name the column that partition.way: {config.partition.way} goes by"
        column = data.column(source, require(config.partition.column, "partition.column", why))
        places = {id(example): place for place, example in enumerate(every)}
        values = tuple(column[places[id(example)]] for example in examples)
    elif config.partition.column is not None:
        raise ConfigError(
            f"partition.column says nothing with partition.way: {config.partition.way}", "choose by_column or dirichlet"
        )
    parts = split(config, len(examples), values, nodes)
    dealt = tuple(tuple(examples[index] for index in part) for part in parts)
    return Dealt(dealt, held_out, partition.digest(parts))


def split(config: Config, records: int, values: Sequence[str], nodes: int) -> Partition:
    """The partition that the settings name. Raises ConfigError for settings that do not go together, Refused."""
    settings = config.partition
    if (settings.shares is None) != (settings.way != "by_size"):
        raise ConfigError("partition.shares and partition.way: by_size belong together", "set both or none")
    match settings.way:
        case "iid":
            return iid.partition(records, nodes, settings.seed)
        case "by_size":
            shares = settings.shares or ()
            if len(shares) != nodes:
                raise ConfigError(
                    f"partition.shares has {len(shares)} numbers for {nodes} nodes", "give one for each node"
                )
            return by_size.partition(records, shares, settings.seed)
        case "by_column":
            return by_column.partition(values, nodes)
        case "dirichlet":
            return dirichlet.partition(values, nodes, settings.alpha, settings.seed)
