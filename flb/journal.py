# SPDX-License-Identifier: Apache-2.0
"""The aggregator's journal: the facts that the chain does not hold, in SQLite.

WAL mode with `synchronous=FULL`: with NORMAL a power cut can lose a receipt that was given. Blobs never go in here.
"""

import errno
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flb.errors import CorruptStore
from flb.records import (
    Roll,
    admitted_from_json,
    admitted_to_json,
    closing_from_json,
    closing_to_json,
)
from flb.rounds import Fact, IntakeClosed, Name, PeerUpdateAdmitted, PeerUploadBegun, StepCombined
from flb.types import Address, Block, Digest, Round


class Journal:
    """The facts that the chain does not hold, in their order. One process writes."""

    def __init__(self, path: Path) -> None:
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA fullfsync=ON")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS facts (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, seed BLOB NOT NULL,"
                " kind TEXT NOT NULL, body TEXT NOT NULL)"
            )
        except sqlite3.Error as error:
            raise CorruptStore(f"the journal {path} cannot be opened ({error})", "restore it from a copy") from error

    def append(self, *facts: Fact) -> None:
        """Write facts down in one transaction: durable when this returns, none of them if it raises.

        Raises OSError (ENOSPC) where the disk is full.
        """
        rows = [(*fact.name, type(fact).__name__, json.dumps(_body(fact))) for fact in facts]
        try:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT INTO facts (round, seed, kind, body) VALUES (?, ?, ?, ?)", rows)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, "the journal has no room") from error
            raise

    def forget(self, before: Round) -> None:
        """Delete the facts of earlier rounds, which nothing reads any more."""
        self._db.execute("DELETE FROM facts WHERE round < ?", (before,))

    def facts(self) -> Iterator[Fact]:
        """All facts in order. Raises CorruptStore."""
        try:
            for number, seed, kind, body in self._db.execute("SELECT round, seed, kind, body FROM facts ORDER BY id"):
                yield _fact((Round(number), Digest(seed)), kind, json.loads(body))
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            raise CorruptStore("the journal cannot be read", "restore it from a copy") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


_ROLL_DIGESTS = ("record_digest", "adapter_digest", "updates_root", "scores_root", "payout_root")


def _body(fact: Fact) -> dict[str, Any]:
    match fact:
        case PeerUploadBegun():
            return {"node": fact.node.hex()}
        case PeerUpdateAdmitted():
            return admitted_to_json(fact.admitted)
        case IntakeClosed():
            return closing_to_json(fact.closing)
        case StepCombined():
            digests = {name: getattr(fact.roll, name).hex() for name in _ROLL_DIGESTS}
            block = {"number": fact.opened_at.number, "hash": fact.opened_at.hash.hex()}
            return {"accepted": fact.roll.accepted, "weight_sum": fact.roll.weight_sum, "opened_at": block, **digests}


def _fact(name: Name, kind: str, body: Any) -> Fact:
    match kind:
        case "PeerUploadBegun":
            return PeerUploadBegun(name, Address(bytes.fromhex(body["node"])))
        case "PeerUpdateAdmitted":
            return PeerUpdateAdmitted(name, admitted_from_json(body))
        case "IntakeClosed":
            return IntakeClosed(name, closing_from_json(body))
        case "StepCombined":
            digests = {key: Digest(bytes.fromhex(body[key])) for key in _ROLL_DIGESTS}
            roll = Roll(round=name[0], accepted=body["accepted"], weight_sum=body["weight_sum"], **digests)
            block = Block(int(body["opened_at"]["number"]), Digest(bytes.fromhex(body["opened_at"]["hash"])))
            return StepCombined(name, roll, block)
    raise ValueError(kind)
