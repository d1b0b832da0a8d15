# SPDX-License-Identifier: Apache-2.0
"""What the demo says of its payout; the payout itself is tested with real processes."""

import pytest

from flb import spec as specs
from flb_cli import demo_payout
from flb_cli.demo_view import paid

pytestmark = pytest.mark.unit


def test_paid__base_units__are_shown_as_tokens() -> None:
    said = paid({"amount": str(1234 * 10**18 + 10**16), "node": "0x01", "payee": "0x02", "tx": "0x03"})
    assert said == "1,234.01 test tokens for node 0x01 to 0x02, transaction 0x03"


def test_settings__payout__fits_the_spec() -> None:
    payout = demo_payout.settings()
    specs.check_scoring(specs.ScoringSpec("capped_examples", str(payout["per_round"])), 1000)
    assert payout["delay_seconds"] == 0
