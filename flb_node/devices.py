# SPDX-License-Identifier: Apache-2.0
"""Where the model computes: from `model.device_map` and what torch sees to one placement; no torch here."""

from dataclasses import dataclass

from flb.errors import ConfigError

CHOICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class Placement:
    """`device` is torch's name of the first device; `device_map` is what `from_pretrained` takes."""

    device: str
    device_map: str | dict[str, str] | None


CPU = Placement("cpu", None)


def placement(device_map: str, cuda_devices: int, mps: bool) -> Placement:
    """One GPU holds the model whole; with `auto` several GPUs share its layers; without any it stays on the CPU.

    Raises ConfigError for a device that this machine does not have, or an unknown word.
    """
    if device_map not in CHOICES:
        raise ConfigError(f"model.device_map is {device_map!r}", f"choose one of {', '.join(CHOICES)}")
    if device_map == "cuda" and cuda_devices == 0:
        raise ConfigError(
            "model.device_map is cuda, but torch finds no CUDA device",
            "install torch for CUDA and a driver, or set device_map to auto",
        )
    if device_map == "mps" and not mps:
        raise ConfigError("model.device_map is mps, but torch finds no Apple GPU", "set model.device_map to auto")
    if device_map == "auto" and cuda_devices > 1:
        return Placement("cuda:0", "auto")
    if device_map in ("auto", "cuda") and cuda_devices > 0:
        return Placement("cuda:0", {"": "cuda:0"})
    if device_map in ("auto", "mps") and mps:
        return Placement("mps", {"": "mps"})
    return CPU
