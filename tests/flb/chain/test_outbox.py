# SPDX-License-Identifier: Apache-2.0
"""What was written down is there after a restart, in order, until it is settled."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from flb.chain.fees import Fees
from flb.chain.outbox import Attempt, Entry, Outbox
from flb.errors import CorruptStore
from flb.types import Address, Digest

pytestmark = pytest.mark.unit

ACCOUNT, RUN = Address(b"\x0a" * 20), Address(b"\x0f" * 20)


def attempt(number: int, most: int = 10**9) -> Attempt:
    return Attempt(Digest(bytes([number]) * 32), bytes([number]) * 100, Fees(most, most // 2))


def entry(nonce: int, *attempts: Attempt) -> Entry:
    return Entry(31337, ACCOUNT, nonce, RUN, b"call", 21_000, attempts)


def test_pending__file_opened_again__has_every_attempt_in_order(tmp_path: Path) -> None:
    first, second = entry(7, attempt(1)), entry(7, attempt(1), attempt(2, 2**100))
    deployment = replace(entry(6, attempt(3)), to=None)
    outbox = Outbox(tmp_path / "outbox.sqlite")
    for one in (first, second, deployment):
        outbox.add(one)
    outbox.close()
    again = Outbox(tmp_path / "outbox.sqlite")
    assert again.pending(31337, ACCOUNT) == (deployment, second)
    assert again.pending(31337, RUN) == again.pending(1, ACCOUNT) == ()
    again.settle(second)
    assert again.pending(31337, ACCOUNT) == (deployment,)


def test_settle__attempts_of_an_earlier_use_of_the_nonce__leave_the_later_ones() -> None:
    """A reorg can give a nonce back; what was settled before must not take the new call with it."""
    outbox = Outbox()
    old, new = entry(7, attempt(1)), entry(7, attempt(2))
    outbox.add(old)
    outbox.settle(old)
    outbox.add(new)
    outbox.settle(old)
    assert outbox.pending(31337, ACCOUNT) == (new,)


def test_open__file_of_another_form__is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(CorruptStore, match=r"outbox\.sqlite cannot be opened"):
        Outbox(path)


def test_add__page_damaged_on_disk__is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.add(entry(7, attempt(1)))
    outbox.close()
    held = path.read_bytes()
    path.write_bytes(held[:4096] + b"\xff" * (len(held) - 4096))
    with pytest.raises(CorruptStore, match=r"outbox cannot be written .*malformed"):
        Outbox(path).add(entry(8, attempt(2)))


def test_pending__fee_that_is_no_number__is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    outbox = Outbox(path)
    outbox.add(entry(7, attempt(1)))
    other = sqlite3.connect(path)
    with other:
        other.execute("UPDATE attempts SET most = 'much'")
    other.close()
    with pytest.raises(CorruptStore, match="the outbox cannot be read"):
        outbox.pending(31337, ACCOUNT)
