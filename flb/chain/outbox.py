# SPDX-License-Identifier: Apache-2.0
"""Transactions that were signed and are not settled: written down before they are sent, found again after a crash.

One SQLite file in a work folder, in WAL mode with `synchronous=FULL` as the journal has it. A row is one attempt; the
attempts of one account and nonce are one entry, of which the chain takes at most one. What is settled is deleted.
"""

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from flb.chain.fees import Fees
from flb.errors import CorruptStore, Unavailable
from flb.types import Address, Digest

COLUMNS = "chain_id, account, nonce, tx, to_address, data, gas, most, tip, raw"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A signed transaction: its hash, its bytes and what it offers."""

    tx: Digest
    raw: bytes
    fees: Fees


@dataclass(frozen=True, slots=True)
class Entry:
    """What an account wants to be done with one nonce. `to` is None for a deployment."""

    chain_id: int
    account: Address
    nonce: int
    to: Address | None
    data: bytes
    gas: int
    attempts: tuple[Attempt, ...]
    """Oldest first; each later one pays more."""


class Outbox:
    """The entries of every account that uses this file. Thread-safe; one process a file. Without a path, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or make the file. Raises CorruptStore."""
        self._lock = threading.Lock()
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA fullfsync=ON")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS attempts (id INTEGER PRIMARY KEY, chain_id INTEGER NOT NULL, account BLOB"
                " NOT NULL, nonce INTEGER NOT NULL, tx BLOB NOT NULL UNIQUE, to_address BLOB, data BLOB NOT NULL,"
                " gas INTEGER NOT NULL, most TEXT NOT NULL, tip TEXT NOT NULL, raw BLOB NOT NULL)"
            )
        except sqlite3.Error as error:
            raise CorruptStore(f"the outbox {path} cannot be opened ({error})", "restore it from a copy") from error

    def add(self, entry: Entry) -> None:
        """Write the newest attempt down; durable when this returns. Raises Unavailable where the disk refuses, or
        CorruptStore."""
        newest = entry.attempts[-1]
        row = (
            entry.chain_id, entry.account, entry.nonce, newest.tx, entry.to, entry.data, entry.gas,
            str(newest.fees.most), str(newest.fees.tip), newest.raw,
        )  # fmt: skip
        self._write(f"INSERT OR IGNORE INTO attempts ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608

    def pending(self, chain_id: int, account: Address) -> tuple[Entry, ...]:
        """What is not settled, in order of nonce. Raises CorruptStore."""
        query = f"SELECT {COLUMNS} FROM attempts WHERE chain_id = ? AND account = ? ORDER BY nonce, id"  # noqa: S608
        found: dict[int, Entry] = {}
        try:
            with self._lock:
                rows = self._db.execute(query, (chain_id, account)).fetchall()
            for _, _, nonce, tx, to, data, gas, most, tip, raw in rows:
                earlier = found[nonce].attempts if nonce in found else ()
                attempt = Attempt(Digest(tx), raw, Fees(int(most), int(tip)))
                where = None if to is None else Address(to)
                found[nonce] = Entry(chain_id, account, nonce, where, data, gas, (*earlier, attempt))
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise CorruptStore("the outbox cannot be read", "restore it from a copy") from error
        return tuple(found.values())

    def settle(self, entry: Entry) -> None:
        """Forget an entry with all of its attempts. Raises as `add` does."""
        where = "chain_id = ? AND account = ? AND nonce = ? AND tx = ?"
        for attempt in entry.attempts:
            self._write(
                f"DELETE FROM attempts WHERE {where}",  # noqa: S608
                (entry.chain_id, entry.account, entry.nonce, attempt.tx),
            )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        try:
            with self._lock:
                self._db.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise Unavailable(
                f"the outbox cannot be written ({error}), so nothing is sent", "check disk space and permissions"
            ) from error
        except sqlite3.DatabaseError as error:
            raise CorruptStore(f"the outbox cannot be written ({error})", "restore it from a copy") from error
