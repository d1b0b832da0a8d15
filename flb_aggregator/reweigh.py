# SPDX-License-Identifier: Apache-2.0
"""What each update counts: its admitted weight, or what the run's rule makes of it."""

from collections.abc import Sequence

from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.files import Files


def integer_weights(spec: RunSpec, step: Step, weights: Sequence[int], files: Files) -> list[int]:
    """One integer for each update, in node order; `weights` are the admitted ones."""
    return list(weights) if spec.aggregation.weights == "examples" else [1] * len(weights)
