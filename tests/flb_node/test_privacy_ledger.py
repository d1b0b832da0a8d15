# SPDX-License-Identifier: Apache-2.0
"""The ledger on disk: private, the same after a reinstall, and never read as less than it is."""

from pathlib import Path

import pytest

from flb.errors import CorruptStore, DiskError, Refused
from flb.privacy.ledger import Charge, spent
from flb.types import Address, Digest, Step
from flb_node.privacy_ledger import PrivacyLedger, default_folder

pytestmark = pytest.mark.unit

RUN = Address(b"\x01" * 20)
RECORDS = (b"one", b"two")


def charge(step: int, mu: float = 0.5) -> Charge:
    return Charge(RUN, Step(step), Digest(bytes(32)), step.to_bytes(16, "big"), mu)


def test_ledger__opened_again_with_the_records_in_another_order__has_the_charges(tmp_path: Path) -> None:
    PrivacyLedger(tmp_path, RECORDS).charge(charge(1), 0.0, 1e-5)
    again = PrivacyLedger(tmp_path, (b"two", b"one", b"two"))
    assert again.charges() == [charge(1)]
    assert PrivacyLedger(tmp_path, (b"one",)).charges() == []


def test_ledger__name_and_content__tell_nothing_without_the_secret(tmp_path: Path) -> None:
    one, other = PrivacyLedger(tmp_path / "a", RECORDS), PrivacyLedger(tmp_path / "b", RECORDS)
    assert one.path.name != other.path.name
    one.charge(charge(1), 0.0, 1e-5)
    assert {path.stat().st_mode & 0o077 for path in (one.path, tmp_path / "a" / "secret")} == {0}


def test_charge__twice__costs_once(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path, RECORDS)
    for _ in range(2):
        ledger.charge(charge(1), 0.0, 1e-5)
    assert ledger.charges() == [charge(1)]


def test_charge__beyond_the_budget__is_refused_and_not_written(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path, RECORDS)
    ledger.charge(charge(1, 1.0), 5.0, 1e-5)
    with pytest.raises(Refused, match="beyond the run's budget of 5"):
        ledger.charge(charge(2, 1.0), 5.0, 1e-5)
    assert ledger.charges() == [charge(1, 1.0)] and spent(ledger.charges(), 1e-5) < 5


def test_charge__after_a_torn_line__takes_its_place(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path, RECORDS)
    ledger.charge(charge(1), 0.0, 1e-5)
    with ledger.path.open("ab") as file:
        file.write(charge(2).line()[:20])
    assert ledger.charges() == [charge(1)]
    ledger.charge(charge(3), 0.0, 1e-5)
    assert ledger.path.read_bytes() == charge(1).line() + charge(3).line()


def test_ledger__damaged__is_not_read_as_less_spent(tmp_path: Path) -> None:
    ledger = PrivacyLedger(tmp_path, RECORDS)
    ledger.charge(charge(1), 0.0, 1e-5)
    ledger.path.write_bytes(b"nonsense\n" + charge(1).line())
    with pytest.raises(CorruptStore, match="line 1"):
        ledger.charge(charge(2), 0.0, 1e-5)


def test_secret__damaged__is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(CorruptStore, match="secret is damaged"):
        PrivacyLedger(tmp_path, RECORDS)


def test_folder__cannot_be_made__is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        PrivacyLedger(tmp_path / "file" / "privacy", RECORDS)


def test_default_folder__state_home__decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/flb/privacy")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/nobody")
    assert default_folder() == Path("/home/nobody/.local/state/flb/privacy")
