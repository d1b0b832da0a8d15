# SPDX-License-Identifier: Apache-2.0
"""AdamW's moments from one round to the next, where the run keeps them: one file a step on the node's own disk.

A file is named by the step that left it, and a step begins from the newest file of an earlier one. A step that is
trained again, after a crash before its seal, therefore gives the same bytes again. Nothing of it leaves the device.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from transformers import TrainerCallback

from flb.errors import CorruptStore
from flb.store import write_atomic

State = dict[str, torch.Tensor]
"""exp_avg, exp_avg_sq and step of each tensor of the adapter, as `tensor name / field`."""
FIELDS = ("exp_avg", "exp_avg_sq", "step")


def read(folder: Path, step: int) -> State:
    """What the newest step before `step` left; empty if none did. Raises CorruptStore."""
    earlier = [path for path in sorted(folder.glob("optimizer-*.safetensors")) if path.name < _path(folder, step).name]
    if not earlier:
        return {}
    try:
        return dict(load_file(earlier[-1]))
    except (OSError, SafetensorError) as error:
        raise CorruptStore(f"{earlier[-1]} is damaged", "delete it; AdamW then starts from zero") from error


def write(folder: Path, step: int, state: Mapping[str, torch.Tensor]) -> None:
    """Leave the state of `step`, flushed, and delete all but the newest two files.

    The one before is still needed while the step is not sealed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(_path(folder, step), save(dict(state)))
    for path in sorted(folder.glob("optimizer-*.safetensors"))[:-2]:
        path.unlink()


class Restore(TrainerCallback):  # type: ignore[misc]
    """Put `state` of the tensors that are trained into the optimizer before the first step: the trainer makes it late."""

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], state: State) -> None:
        self.weights, self.state = weights, state

    def on_train_begin(self, *_: Any, optimizer: Any, **__: Any) -> None:
        """The optimizer is there and has no state yet."""
        held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
        for name, weight in self.weights.items():
            if id(weight) in held and f"{name}/step" in self.state:
                values = {field: self.state[f"{name}/{field}"].clone() for field in FIELDS}
                inner.state[weight] = {
                    field: value if field == "step" else value.to(weight.device) for field, value in values.items()
                }


def taken(optimizer: torch.optim.Optimizer, weights: Mapping[str, torch.nn.Parameter], before: State) -> State:
    """The state of all tensors: those that `optimizer` trained, and the others as they were `before`."""
    state = dict(before)
    for name, weight in weights.items():
        for field, value in optimizer.state.get(weight, {}).items():
            state[f"{name}/{field}"] = value.detach().cpu().contiguous()
    return state


def _path(folder: Path, step: int) -> Path:
    return folder / f"optimizer-{step:08d}.safetensors"
