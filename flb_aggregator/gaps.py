# SPDX-License-Identifier: Apache-2.0
"""How far the mean of A and of B, each on its own, is from the mean of the products: a pass of its own over the updates.

For reports alone, so what has no such figure has none, and no round fails for it. Modes that work in product space
know it from their own pass.
"""

from collections.abc import Callable

import numpy as np

from flb.lora import gap, gram
from flb.lora.gap import Gap
from flb.lora.gap_sketch import Sketch, signs_of
from flb.lora.shape import A
from flb.moments import keeps_moments
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import Module, Round, paired
from flb_aggregator.reweigh import Counted

EXACT_BYTES = 4 << 20
"""What a thread may hold of all nodes' factors at once; beyond, the gap is estimated node by node."""


def measurable(spec: RunSpec, counted: Counted) -> bool:
    """Whether the updates have weights, and the adapter is made of LoRA factors at the run's rank."""
    r = spec.lora.r
    shapes = all(tensor.shape[0 if tensor.name.endswith(A) else -1] == r for tensor in spec.tensors)
    return paired(spec.tensors) and shapes and counted.kept is None


def measure(spec: RunSpec, step: Step, counted: Counted, files: Files, threads: int) -> Gap:
    """The gap of a step whose base is number 0 of `files`, then one update for each of `counted`.

    Server SGD moves by its learning rate; of an optimizer with moments it is the gap of the mean that it gets.
    """
    rate = 1.0 if keeps_moments(spec) else spec.server_optimizer.learning_rate
    held = Round(spec, step, counted, files, rate)
    largest = max(module.extent for module in held.modules)
    exact = 4 * (1 + len(held.updates)) * held.r * largest <= EXACT_BYTES
    gaps: list[Gap] = []
    in_order(held.modules, lambda: (exactly if exact else sketched)(held), gaps.append, threads)
    return sum(gaps, Gap())


def exactly(held: Round) -> Callable[[Module], Gap]:
    """A function that measures one module from its Gram matrices, with buffers of its own."""
    load = held.loader()

    def of_module(module: Module) -> Gap:
        stack = load(module)
        return gap.of_factors(held.taken, held.r, gram.of_columns(stack.left), gram.of_rows(stack.right))

    return of_module


def sketched(held: Round) -> Callable[[Module], Gap]:
    """A function that estimates one module, node by node."""
    widest = max(module.a.shape[1] for module in held.modules)
    signs, load, base = (
        signs_of(widest),
        held.one_by_one(),
        np.empty(held.r * max(m.extent for m in held.modules), dtype="<f4"),
    )

    def of_module(module: Module) -> Gap:
        a, b = held.base.read(module, base)
        sketch = Sketch(b, a, signs[: a.shape[1]])
        for share, (db, da) in zip(held.taken, load(module), strict=True):
            sketch.add(float(share[0]), db, da)
        return sketch.gap

    return of_module
