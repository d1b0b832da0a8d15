# SPDX-License-Identifier: Apache-2.0
"""Which dataset the config names: `dataset_name`, or the section `dataset`."""

from dataclasses import fields
from pathlib import Path

from flb.config import Config, require
from flb.errors import ConfigError
from flb_node.data import Source, source_of
from flb_node.rows import LISTED


def of_config(config: Config, folder: Path) -> Source:
    """The source; `folder` is the config file's own, against which its reader has resolved names.

    Raises ConfigError for no name or two, DatasetError for a split of a local file.
    """
    settings = config.dataset
    if config.dataset_name is not None and settings.name is not None:
        raise ConfigError("dataset_name and dataset.name both name the data", "keep one of them")
    name = config.dataset_name if settings.name is None else settings.name
    named = require(
        name, "dataset_name", f"name this node's data: {LISTED}, a folder of them, or owner/name on the Hub"
    )
    columns = {
        item.name: column
        for item in fields(settings.columns)
        if (column := getattr(settings.columns, item.name)) is not None
    }
    return source_of(
        named, folder, split=settings.split, revision=settings.revision, subset=settings.subset, columns=columns
    )
