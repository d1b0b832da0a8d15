# SPDX-License-Identifier: Apache-2.0
"""`flb privacy audit`: a verdict for people and for programs."""

import json

import pytest

from flb.errors import Refused
from flb_cli import privacy
from flb_cli.main import main

pytestmark = pytest.mark.unit


def test_audit__asked_for_json__passes_and_convicts_a_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "audit", "--rounds", "1", "--trials", "2000", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["passed"] and told["audit"]["trials"] == 2000
    assert not told["audit"]["convicted"] and told["with_a_quarter_of_the_noise"]["convicted"]


def test_audit__too_few_trials_to_tell__is_undecided(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["privacy", "audit", "--rounds", "1", "--trials", "200", "--epsilon", "5"]
    assert main(arguments) == Refused.exit_code
    assert "undecided" in capsys.readouterr().out


def test_audit__an_impossible_claim__is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["privacy", "audit", "--epsilon", "-1"]) == Refused.exit_code
    assert "epsilon is -1" in capsys.readouterr().err


def test_in_words__a_convicted_mechanism__is_said_to_fail() -> None:
    verdict = {"convicted": True, "shown": 2.0, "epsilon": 1.0, "rounds": 1, "delta": 1e-5, "trials": 2000,
               "true_positives": 90, "false_positives": 3, "counted": 500}  # fmt: skip
    text = privacy.in_words({"passed": False, "audit": verdict, "with_a_quarter_of_the_noise": verdict})
    assert "FAILED" in text and "at least 2" in text
