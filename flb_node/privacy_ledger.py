# SPDX-License-Identifier: Apache-2.0
"""The privacy ledger on disk: outside the work folder, so that a new one, a new key or a reinstall forgets nothing.

One file a dataset, named by a fingerprint that only this device can make: HMAC-SHA256 over the record hashes under a
secret that stays in the ledger's folder. The same records in another order are the same dataset. A charge is on the medium
before the call returns.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flb.accounting import epsilon_of_releases
from flb.errors import CorruptStore, disk_error
from flb.privacy.ledger import Charge, check_budget, read
from flb.store import sync_file, sync_folder, write_atomic

SECRET_BYTES = 32


def default_folder() -> Path:
    """The user's state folder: $XDG_STATE_HOME, or ~/.local/state, and flb/privacy in it."""
    named = os.environ.get("XDG_STATE_HOME", "")
    root = Path(named) if named.startswith("/") else Path.home() / ".local" / "state"
    return root / "flb" / "privacy"


class PrivacyLedger:
    """The charges of one dataset on this device."""

    def __init__(self, folder: Path, records: Iterable[bytes]) -> None:
        """`records` are the dataset's, as they are committed to. Raises DiskError and CorruptStore."""
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with locked(folder / "lock"):
                secret = load_secret(folder / "secret")
        except OSError as error:
            raise disk_error(error) from error
        self.path = folder / f"{fingerprint(records, secret)}.jsonl"

    def charges(self) -> list[Charge]:
        """Everything that was ever charged. Raises CorruptStore."""
        try:
            return read(self.path.read_bytes())[0]
        except FileNotFoundError:
            return []

    def charge(self, further: Charge, epsilon: float, delta: float) -> None:
        """Add a charge and return once it is durable; one that is there already, by its key, costs nothing.

        Raises Refused beyond the budget (see `check_budget`), CorruptStore, DiskError.
        """
        try:
            with locked(self.folder / "lock"):
                self._append(further, epsilon, delta)
        except OSError as error:
            raise disk_error(error) from error

    def _append(self, further: Charge, epsilon: float, delta: float) -> None:
        fresh = not self.path.exists()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            charges, whole = read(file.readall())
            if further in charges:
                return
            check_budget(charges, further, epsilon, delta, epsilon_of_releases)
            file.truncate(whole)  # what a killed process left half written
            file.seek(whole)
            line = memoryview(further.line())
            while line:
                line = line[file.write(line) or 0 :]
            sync_file(file.fileno())
        if fresh:
            sync_folder(self.folder)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time: nodes of this device share the folder."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def load_secret(path: Path) -> bytes:
    """The device's secret, made at first use and durable. Raises CorruptStore."""
    if not path.exists():
        write_atomic(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise CorruptStore(
            f"{path} is damaged", "restore it from a copy; without it the ledgers beside it are not found"
        )
    return secret


def fingerprint(records: Iterable[bytes], secret: bytes) -> str:
    """The dataset's name in this folder, 64 hex digits."""
    mac = hmac.new(secret, b"flb privacy ledger", hashlib.sha256)
    for digest in sorted({hashlib.sha256(record).digest() for record in records}):
        mac.update(digest)
    return mac.hexdigest()
