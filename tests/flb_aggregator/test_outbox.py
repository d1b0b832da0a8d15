# SPDX-License-Identifier: Apache-2.0
"""What ends a round is sent until it is mined or not due: which refusals are worth another try."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from flb.errors import ChainUnavailable, ContractRefused, FLBError
from flb.types import Digest, Round
from flb_aggregator import outbox as outboxes
from flb_aggregator.metrics import Metrics
from flb_aggregator.outbox import Outbox

pytestmark = pytest.mark.unit

NAME = (Round(1), Digest(b"\x5e" * 32))


@dataclass(frozen=True)
class Mined:
    tx: Digest = Digest(b"\x77" * 32)
    gas_used: int = 50_000


def submitted(folder: Path, *faults: FLBError, due: Callable[[], bool] = lambda: True) -> tuple[int, list[str]]:
    """How often a call was tried that raises these first and is mined then; and what was logged."""
    left, tries, lines = list(faults), 0, list[str]()

    def send() -> Mined:
        nonlocal tries
        tries += 1
        if left:
            raise left.pop(0)
        return Mined()

    made = Outbox(Metrics(folder / "rounds.jsonl", lambda: 0.0), lines.append)
    asyncio.run(made.submit("roll", NAME, send, due))
    assert made.sending == set()
    return tries, lines


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outboxes, "RETRY_SECONDS", 0.0)


@pytest.mark.parametrize("name", ["FLBTooEarly", "InsufficientFunds", "Underpriced", "NonceUsed"])
def test_submit__refusal_that_passes__is_tried_again(tmp_path: Path, name: str) -> None:
    tries, lines = submitted(tmp_path, ContractRefused(name), ChainUnavailable("away"), ContractRefused(name))
    assert tries == 4
    assert lines[-1] == "round 1: roll mined, 50000 gas"


@pytest.mark.parametrize("name", ["FLBWrongRound", "revert"])
def test_submit__round_that_somebody_else_ended__is_let_go(tmp_path: Path, name: str) -> None:
    tries, lines = submitted(tmp_path, ContractRefused(name))
    assert tries == 1 and "not due any more" in lines[-1]


def test_submit__another_refusal__is_raised(tmp_path: Path) -> None:
    with pytest.raises(ContractRefused, match="FLBUnauthorized"):
        submitted(tmp_path, ContractRefused("FLBUnauthorized"))


def test_submit__no_longer_due__is_not_sent(tmp_path: Path) -> None:
    assert submitted(tmp_path, due=lambda: False) == (0, [])
