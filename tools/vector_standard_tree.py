# SPDX-License-Identifier: Apache-2.0
"""Cases of proto/vectors about trees of scores and payouts; `@openzeppelin/merkle-tree` makes the same from the entries."""

from flb import standard_tree
from flb.types import Address
from tools.vector_values import Case, text

GOLDEN = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Spreads addresses."""


def cases() -> list[Case]:
    """Entries to the whole tree of `@openzeppelin/merkle-tree`, and the proof of every entry."""
    made_cases = []
    for count in (1, 2, 3, 4, 5, 7, 8, 13):
        entries = [
            (Address((index * GOLDEN % 2**160).to_bytes(20, "big")), (index - 1) * 0x1000003**7 % standard_tree.UINT256)
            for index in range(1, count + 1)
        ]
        entries[-1] = (entries[-1][0], standard_tree.UINT256 - 1)
        made = standard_tree.tree(entries)
        made_cases.append({"entries": [[text(node), str(value)] for node, value in entries], "root": text(made.root),
                      "tree": [text(node) for node in made.nodes], "places": list(made.places),
                      "proofs": [[text(one) for one in made.proof(index)] for index in range(count)]})  # fmt: skip
    return made_cases
