# SPDX-License-Identifier: Apache-2.0
"""What the registry's calls cost, measured on a chain: flat for any number of nodes, and below the limits."""

import pytest

from bench import gas
from flb.chain.local import LocalChain
from flb.chain.rpc import Rpc
from flb.types import Round
from tests.chains import Deployed, a_roll, later

pytestmark = pytest.mark.chain

ROLL_COLD, ROLL = 70_000, 50_000
CLAIM_FIRST, CLAIM = 98_000, 64_000
JOIN, RELAYED, RELAYED_WITH_INVITE = 80_000, 36_000, 41_000
ZERO_BYTES = 100
"""What a few zero bytes among the hashes of a roll may save of its calldata."""
LEVEL = 900
"""What one more level of the payout tree may cost a claim: a word of calldata and a hash."""


@pytest.fixture(scope="module")
def figures(chain: LocalChain) -> gas.Figures:
    """Everything that `python -m bench.gas` prints, from trees with that many real leaves."""
    return gas.measure(Rpc(chain.url))


def test_roll__ten_to_ten_thousand_nodes__costs_the_same(figures: gas.Figures) -> None:
    rolls = [figures["roll"][str(nodes)] for nodes in gas.NODES]
    assert max(rolls) <= ROLL, rolls
    assert max(rolls) - min(rolls) <= ZERO_BYTES, rolls
    assert figures["roll_cold"] <= ROLL_COLD


def test_claim__ten_to_ten_thousand_nodes__grows_by_the_proof_alone(figures: gas.Figures) -> None:
    claims = [figures["claim"][str(nodes)] for nodes in gas.NODES]
    assert max(claims) <= CLAIM, claims
    assert claims == sorted(claims)
    levels = [(2 * nodes - 1).bit_length() - 1 for nodes in gas.NODES]
    assert claims[-1] - claims[0] <= LEVEL * (levels[-1] - levels[0]), claims
    assert figures["claim_first"] <= CLAIM_FIRST


def test_join__by_call_and_in_batches__stays_below_its_limits(figures: gas.Figures) -> None:
    assert figures["join"] <= JOIN
    assert figures["join_relayed_per_node"] <= RELAYED
    assert figures["join_relayed_with_invite_per_node"] <= RELAYED_WITH_INVITE


def test_measure__every_figure__has_its_key(figures: gas.Figures) -> None:
    single = {"join", "join_relayed_per_node", "join_relayed_with_invite_per_node", "register_dataset", "claim_first"}
    assert set(figures) == {"roll", "roll_cold", "claim", *single}
    assert all(set(figures[name]) == {str(nodes) for nodes in gas.NODES} for name in ("roll", "claim"))
    assert all(type(figures[name]) is int and figures[name] > 21_000 for name in (*single, "roll_cold"))


def test_roll__after_void_rounds__stays_below_the_limit(deployed: Deployed) -> None:
    deployed.owner.start()
    later(deployed.rpc, 151)
    assert deployed.nodes[0].expire(Round(1)).gas_used <= ROLL_COLD
    assert deployed.aggregator.roll(a_roll(2)).gas_used <= ROLL_COLD
