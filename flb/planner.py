# SPDX-License-Identifier: Apache-2.0
"""From settings to a run spec: resolves `auto`, and refuses what would not work, before anything is deployed."""

import math
from collections.abc import Iterable

from flb.errors import Refused
from flb.lora.layout import adapter_tensors, module_names, resolve
from flb.spec import BaseSpec, LoraSpec, RingSpec, RoundSpec, RunSpec, ServerOptimizerSpec, TrainingSpec, check
from flb.types import TensorSpec

FRACTION_BITS = 32
"""F of docs/arithmetic.md 1."""


def norm_bound(training: TrainingSpec, tensors: Iterable[TensorSpec]) -> int:
    """Least power of two that is at least peak learning rate · local steps · √P.

    Adam moves a coordinate by about the learning rate a step, so an honest update stays at about a quarter of it.
    """
    parameters = sum(tensor.size for tensor in tensors)
    reach = training.learning_rate * training.local_steps * math.sqrt(parameters)
    return max(1, 1 << max(0, math.ceil(math.log2(reach)))) if reach > 0 else 1


def plan_tensors(
    base: Iterable[TensorSpec], wanted: str | tuple[str, ...], r: int, model_type: str = ""
) -> tuple[tuple[str, ...], tuple[TensorSpec, ...]]:
    """Resolved target modules, and the adapter's tensors. `model_type` is the base's, from its config.json.

    Raises Refused for a name that matches nothing and for a rank below 1.
    """
    modules = resolve(base, wanted, model_type)
    tensors = adapter_tensors(modules, r)
    if any(min(tensor.shape) < 1 for tensor in tensors):
        raise Refused(f"lora.r is {r}", "choose at least 1")
    return module_names(modules), tensors


def make_spec(
    *,
    base: BaseSpec,
    lora: LoraSpec,
    tensors: tuple[TensorSpec, ...],
    adapter: str,
    training: TrainingSpec,
    rounds: RoundSpec,
    server_optimizer: ServerOptimizerSpec,
    codec: str,
    down: str,
    audit: str,
    value_bound: int,
    weight_cap: int,
    norm: int | None,
    open_membership: bool,
    salt: str,
) -> RunSpec:
    """The spec, checked. `norm` None means `norm_bound`. Raises Refused for combinations that can't work."""
    if open_membership and audit == "members":
        audit = "off"  # members would mean everybody; only an explicit `public` publishes updates
    spec = RunSpec(
        version=1,
        base=base,
        lora=lora,
        tensors=tensors,
        adapter=adapter,
        training=training,
        ring=RingSpec(FRACTION_BITS, value_bound, weight_cap, norm or norm_bound(training, tensors)),
        rounds=rounds,
        server_optimizer=server_optimizer,
        codec=codec,
        down=down,
        audit=audit,
        salt=salt,
    )
    check(spec)
    return spec
