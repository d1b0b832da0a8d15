# SPDX-License-Identifier: Apache-2.0
"""From the base model's tensors to the adapter's: which modules are adapted, under which names and shapes.

Works from the shapes in the base's safetensors headers alone, so whoever deploys a run needs no torch.
"""

from collections.abc import Iterable

from flb.errors import Refused
from flb.types import TensorSpec

ALL_LINEAR = "all-linear"


def linear_modules(base: Iterable[TensorSpec]) -> dict[str, tuple[int, int]]:
    """Module path -> (d, k) of every linear layer inside a numbered block; heads and embeddings are outside."""
    found: dict[str, tuple[int, int]] = {}
    for tensor in base:
        parts = tensor.name.split(".")
        if len(tensor.shape) == 2 and parts[-1] == "weight" and any(part.isdigit() for part in parts):
            found[".".join(parts[:-1])] = (tensor.shape[0], tensor.shape[1])
    return found


def resolve(base: Iterable[TensorSpec], wanted: str | tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """The linear modules whose last name is wanted, or all of them. Raises Refused if a name matches nothing."""
    modules = linear_modules(base)
    if not modules:
        raise Refused("the base model has no linear layer in numbered blocks", "choose a causal language model")
    if wanted == ALL_LINEAR:
        return modules
    names = (wanted,) if isinstance(wanted, str) else wanted
    known = sorted({path.rsplit(".", 1)[-1] for path in modules})
    for name in names:
        if name not in known:
            raise Refused(f"lora.target_modules: {name!r} matches no layer of the base model", f"it has {known}")
    return {path: shape for path, shape in modules.items() if path.rsplit(".", 1)[-1] in names}


def adapter_tensors(modules: dict[str, tuple[int, int]], r: int) -> tuple[TensorSpec, ...]:
    """Names and shapes of the adapter file as peft writes it, in byte order: A is (r, k), B is (d, r)."""
    tensors = []
    for path, (d, k) in modules.items():
        tensors.append(TensorSpec(f"base_model.model.{path}.lora_A.weight", (r, k)))
        tensors.append(TensorSpec(f"base_model.model.{path}.lora_B.weight", (d, r)))
    return tuple(sorted(tensors, key=lambda tensor: tensor.name.encode()))


def module_names(modules: dict[str, tuple[int, int]]) -> tuple[str, ...]:
    """The distinct last names, sorted: what `target_modules` of peft takes."""
    return tuple(sorted({path.rsplit(".", 1)[-1] for path in modules}))
