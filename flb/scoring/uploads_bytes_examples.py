# SPDX-License-Identifier: Apache-2.0
"""The historic rule: uploads × bytes + examples, with all its weaknesses; for comparisons with older systems.

A round admits one update of a node, so uploads is 1 there, and the total over a run is Σ bytes + Σ examples.
"""

from collections.abc import Sequence

from flb.spec import RunSpec
from flb.types import Address, Admitted

WEAKNESSES = (
    "uploads_bytes_examples rewards repetition: every admitted upload scores its size again, whatever it taught",
    "uploads_bytes_examples rewards size: a codec with more bytes for a value scores more for the same update",
    "uploads_bytes_examples takes examples as a node declares them: no cap, no dataset, no proof",
)
"""What the planner says when a run chooses this rule."""
UPLOADS = 1
"""Admitted uploads of a node in one round: the first that was committed counts."""


def scores(admitted: Sequence[Admitted], spec: RunSpec) -> dict[Address, int]:
    """uploads × bytes + examples of each admitted update, by node."""
    return {item.node: UPLOADS * item.manifest.size + item.manifest.examples for item in admitted}
