# SPDX-License-Identifier: Apache-2.0
"""How far the mean of A and of B, each on its own, is from the mean of the products: a pass of its own over the updates.

For reports alone, so what has no such figure has none, and no round fails for it. Modes that work in product space
know it from their own pass.
"""

from collections.abc import Callable

from flb.lora import gap, gram
from flb.lora.gap import Gap
from flb.lora.mean_product import MOST_DIRECTIONS
from flb.lora.shape import A
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import Module, Round, paired
from flb_aggregator.reweigh import Counted


def measurable(spec: RunSpec, counted: Counted) -> bool:
    """Whether the updates have weights, the adapter is made of LoRA factors at the run's rank, and the cohort is small
    enough for Gram matrices."""
    r = spec.lora.r
    shapes = all(tensor.shape[0 if tensor.name.endswith(A) else -1] == r for tensor in spec.tensors)
    return paired(spec.tensors) and shapes and counted.kept is None and (1 + counted.updates) * r <= MOST_DIRECTIONS


def measure(spec: RunSpec, step: Step, counted: Counted, files: Files, threads: int) -> Gap:
    """The gap of a step whose base is number 0 of `files`, then one update for each of `counted`."""
    held = Round(spec, step, counted, files, spec.server_optimizer.learning_rate)
    gaps: list[Gap] = []

    def worker() -> Callable[[Module], Gap]:
        load = held.loader()

        def of_module(module: Module) -> Gap:
            stack = load(module)
            return gap.of_factors(held.taken, held.r, gram.of_columns(stack.left), gram.of_rows(stack.right))

        return of_module

    in_order(held.modules, worker, gaps.append, threads)
    return sum(gaps, Gap())
