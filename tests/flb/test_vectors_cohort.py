# SPDX-License-Identifier: Apache-2.0
"""proto/vectors/cohort.json against the program, and against the rule written out in another way."""

import math
from decimal import Decimal

import pytest

from flb.merkle import keccak256
from flb.roster import cohort, quorum
from flb.spec import RoundSpec
from flb.types import Address, Digest, Member
from tests.flb.test_vectors import Case, cases, raw

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("case", cases("cohort"), ids=lambda case: f"{case['fraction']} of {len(case['roster'])}")
def test_cohort__roster_and_seed__are_the_drawn_nodes(case: Case) -> None:
    """Written out here in its own way: ceil of the decimal times n, the smallest hashes, then by address."""
    n = len(case["roster"])
    count = max(case["min_nodes"], math.ceil(Decimal(str(case["fraction"])) * n))
    lots = {node: keccak256(raw(case["seed"]) + raw(node)) for node in case["roster"]}
    drawn = sorted(sorted(lots, key=lambda node: lots[node])[: min(count, case["max_cohort"])])
    rule = RoundSpec(1, 1, 1, case["min_nodes"], case["fraction"], 0, case["max_cohort"])
    members = tuple(Member(Address(raw(node)), Address(raw(node)), Address(raw(node))) for node in case["roster"])
    ours = ["0x" + member.node.hex() for member in cohort(members, Digest(raw(case["seed"])), rule)]
    assert drawn == ours == case["cohort"]
    assert quorum(len(drawn), case["min_nodes"]) == case["quorum"]
