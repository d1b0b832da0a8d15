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

    way: Literal["iid", "by_column", "dirichlet"] = _setting(
        "iid", "iid (all alike), by_column (whole topics), dirichlet (each topic spread unevenly)"
    )
    column: str | None = _setting(None, "the dataset's column of by_column and dirichlet")
    alpha: float = _setting(0.5, "of dirichlet: a small one gives each topic to few nodes, a large one nears iid")
    seed: int = _setting(0, "of iid and dirichlet")
