# SPDX-License-Identifier: Apache-2.0
"""Cases of proto/vectors about who is drawn for a round, and how many updates it needs."""

from flb.merkle import keccak256
from flb.roster import cohort, quorum
from flb.spec import RoundSpec
from flb.types import Address, Member
from tools.vector_values import Case, digest, text

RULES = (
    (3, 1.0, 2, 4096),
    (10, 0.3, 2, 4096),
    (10, 0.07, 2, 4096),
    (100, 0.07, 2, 4096),
    (10, 1.0, 2, 4),
    (1, 1.0, 2, 9),
)
"""Members, fraction, least and most nodes: 7 of 100 for 0.07, where a product of floats would draw 8."""


def cases() -> list[Case]:
    """Roster, seed and the spec's rule to the cohort, in order of address, and its quorum."""
    made = []
    for count, fraction, least, most in RULES:
        nodes = sorted(Address(keccak256(f"member {index}".encode())[12:]) for index in range(count))
        rule = RoundSpec(3, 3600, 3600, least, fraction, 0, most)
        seed = digest(f"seed {count} {fraction}")
        drawn = cohort(tuple(Member(node, node, node) for node in nodes), seed, rule)
        made.append({"roster": [text(node) for node in nodes], "seed": text(seed), "fraction": fraction,
                     "min_nodes": least, "max_cohort": most, "cohort": [text(member.node) for member in drawn],
                     "quorum": quorum(len(drawn), least)})  # fmt: skip
    return made
