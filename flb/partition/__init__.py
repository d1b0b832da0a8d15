# SPDX-License-Identifier: Apache-2.0
"""Partitions of one dataset over nodes: one way a file, pure functions of their arguments.

A partition is a list of index lists, one a node, each in rising order; no index stands in two. Whoever has the dataset,
the way and the seed gets the same partition, and `digest` says so in 32 bytes.
"""

import hashlib
from collections.abc import Sequence

from flb.errors import Refused
from flb.types import Digest

Partition = list[list[int]]
"""Indices of records, by node."""


def digest(partition: Sequence[Sequence[int]]) -> Digest:
    """SHA-256 over the number of nodes, then each node's number of records and indices, all 8 bytes big endian."""
    hashed = hashlib.sha256(b"flb partition" + len(partition).to_bytes(8, "big"))
    for part in partition:
        hashed.update(b"".join(number.to_bytes(8, "big") for number in (len(part), *part)))
    return Digest(hashed.digest())


def check_nodes(nodes: int, records: int) -> None:
    """Raise Refused for fewer than one node, or fewer records than nodes."""
    if nodes < 1:
        raise Refused(f"a partition over {nodes} nodes", "choose at least 1")
    if nodes > records:
        raise Refused(f"{records} records do not reach {nodes} nodes", "choose fewer nodes, or a larger dataset")
