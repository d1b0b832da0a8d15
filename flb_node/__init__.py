# SPDX-License-Identifier: Apache-2.0
"""The node's shell: data, training, key and disk around the core of `flb`. torch stays in the modules that need it."""

from typing import Any


def attach(trainer: Any, run: str = "config.yaml", **settings: Any) -> None:
    """Let somebody's own SFTTrainer or Trainer train for a run: `flb_node.attached.attach`."""
    from flb_node import attached  # brings torch, which the other users of this package do without

    attached.attach(trainer, run, **settings)
