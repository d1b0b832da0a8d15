# SPDX-License-Identifier: Apache-2.0
"""What a round costs its aggregator, measured on a chain."""

import pytest

from flb.types import Round
from tests.chains import Deployed, a_roll, later

pytestmark = pytest.mark.chain

RING = 64
"""FLBRun keeps so many record hashes; later rolls overwrite."""
FIRST_GAS = 72_000
LATER_GAS = 55_000


def test_roll__first_rounds_and_later_ones__stay_below_their_gas_limits(deployed: Deployed) -> None:
    deployed.owner.start()
    used = [deployed.aggregator.roll(a_roll(number)).gas_used for number in range(1, RING + 4)]
    assert max(used[:RING]) <= FIRST_GAS, used
    assert max(used[RING:]) <= LATER_GAS, used


def test_roll__after_void_rounds__stays_below_the_limit(deployed: Deployed) -> None:
    deployed.owner.start()
    later(deployed.rpc, 151)
    assert deployed.nodes[0].expire(Round(1)).gas_used <= FIRST_GAS
    assert deployed.aggregator.roll(a_roll(2)).gas_used <= FIRST_GAS
