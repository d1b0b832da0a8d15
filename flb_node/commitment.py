# SPDX-License-Identifier: Apache-2.0
"""The node's dataset commitment: a salted Merkle root over its records, the same after every restart.

Salts come from the node's own secret and never leave the device; without them a record cannot be guessed from its
hash, and two nodes with the same data cannot be recognised.
"""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path

from flb.errors import CorruptStore
from flb.merkle import dataset_root, salted_record
from flb.store import write_atomic
from flb.types import Address, Digest

SECRET_BYTES = 32


def load_secret(folder: Path) -> bytes:
    """The node's secret, made at first use and durable before it is used. Raises CorruptStore."""
    path = folder / "secret"
    if not path.exists():
        write_atomic(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise CorruptStore(f"{path} is damaged", "restore it from a copy, or delete it and register the dataset again")
    return secret


def commit(node: Address, records: Iterable[bytes], secret: bytes) -> tuple[Digest, int]:
    """Root and number of records; record i is salted with HMAC-SHA256(secret, i)."""
    leaves = [
        salted_record(hmac.new(secret, b"flb record" + index.to_bytes(8, "big"), hashlib.sha256).digest(), record)
        for index, record in enumerate(records)
    ]
    return dataset_root(node, leaves), len(leaves)
