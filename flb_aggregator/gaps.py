# SPDX-License-Identifier: Apache-2.0
"""How far the mean of A and of B, each on its own, is from the mean of the products: a pass of its own over the updates.

For reports alone. Modes that work in product space know it from their own pass.
"""

from collections.abc import Callable, Sequence

from flb.lora import gap, gram
from flb.lora.gap import Gap
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.files import Files
from flb_aggregator.in_order import in_order
from flb_aggregator.module_stack import Module, Round


def measure(spec: RunSpec, step: Step, weights: Sequence[int], files: Files, threads: int) -> Gap:
    """The gap of a step whose base is number 0 of `files`, then one update for each of `weights`."""
    held = Round(spec, step, weights, files, spec.server_optimizer.learning_rate)
    gaps: list[Gap] = []

    def worker() -> Callable[[Module], Gap]:
        load = held.loader()

        def of_module(module: Module) -> Gap:
            stack = load(module)
            return gap.of_factors(held.taken, held.r, gram.of_columns(stack.left), gram.of_rows(stack.right))

        return of_module

    in_order(held.modules, worker, gaps.append, threads)
    return sum(gaps, Gap())
