# SPDX-License-Identifier: Apache-2.0
"""Which examples a round trains on: the run's seed orders the data once an epoch, and rounds walk through it.

Without it each round would draw from all examples anew, and a node with many would leave some of them out for ever.
"""

from flb.partition.permutation import permutation


def window(records: int, seed: int, first: int, count: int) -> list[int]:
    """Positions `first` to `first + count` of an endless sequence of epochs, each of all `records` in an order of its
    own; `first` is how many examples the rounds before have used. Raises nothing; `records` is at least 1."""
    found: list[int] = []
    while len(found) < count:
        epoch, at = divmod(first + len(found), records)
        order = permutation(records, seed, f"epoch {epoch}")
        found += order[at : at + count - len(found)]
    return found
