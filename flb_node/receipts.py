# SPDX-License-Identifier: Apache-2.0
"""Receipts as files: a node's proof that its updates were taken, kept for good."""

import json
from pathlib import Path

from flb.store import write_atomic
from flb.types import Receipt


def write(folder: Path, receipt: Receipt, signature: bytes) -> Path:
    """Durable when it returns, before the round counts as done."""
    values = {name: getattr(receipt, name) for name in Receipt.__slots__}
    fields = {name: value if isinstance(value, int) else "0x" + value.hex() for name, value in values.items()}
    fields["signature"] = "0x" + signature.hex()
    path = folder / f"receipt-{receipt.round:04d}-{receipt.seed.hex()[:16]}.json"
    write_atomic(path, json.dumps(fields, indent=2).encode())
    return path
