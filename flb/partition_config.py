# SPDX-License-Identifier: Apache-2.0
"""How `flb simulate` deals one dataset out to its nodes, a section of `flb.config.Config`."""

from dataclasses import dataclass, field
from typing import Any, Literal


def _setting(default: Any, text: str) -> Any:
    """A field with its comment."""
    return field(default=default, metadata={"text": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionConfig:
    """For flb simulate: how dataset_name is dealt out to num_clients nodes."""

    way: Literal["iid", "by_size", "by_column", "dirichlet"] = _setting(
        "iid", "iid, by_size (unequal numbers), by_column (whole topics) or dirichlet (each topic spread unevenly)"
    )
    shares: tuple[int, ...] | None = _setting(None, "of by_size: each node's part of the records, as [3, 1, 1]")
    column: str | None = _setting(None, "the dataset's column of by_column and dirichlet")
    alpha: float = _setting(0.5, "of dirichlet: a small one gives each topic to few nodes, a large one nears iid")
    seed: int = _setting(0, "of iid, by_size and dirichlet")
