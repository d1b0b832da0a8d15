# SPDX-License-Identifier: Apache-2.0
"""Scores of a round: one rule a file, in integers, each (admitted updates, spec) -> {node: score of this round}.

A rule sees what the record holds and nothing else, so whoever has the record computes the same scores. A node that
was admitted has a score, even of 0; a node that was late, missing or not drawn has none in that round.
"""

from collections.abc import Callable, Mapping, Sequence

from flb.scoring import capped_examples, uploads_bytes_examples
from flb.spec import RunSpec
from flb.types import Address, Admitted

Rule = Callable[[Sequence[Admitted], RunSpec], dict[Address, int]]

RULES: Mapping[str, Rule] = {
    "capped_examples": capped_examples.scores,
    "uploads_bytes_examples": uploads_bytes_examples.scores,
}
"""By the name that a run spec gives."""
WEAKNESSES: Mapping[str, tuple[str, ...]] = {
    "capped_examples": (),
    "uploads_bytes_examples": uploads_bytes_examples.WEAKNESSES,
}
"""What an operator must know before choosing a rule; sentences."""


def of_round(admitted: Sequence[Admitted], spec: RunSpec) -> dict[Address, int]:
    """The scores of one round under the run's rule, which `flb.spec.check` has found to exist."""
    return RULES[spec.scoring.rule](admitted, spec)
