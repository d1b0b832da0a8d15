# SPDX-License-Identifier: Apache-2.0
"""What a step made, noted on disk before anybody hears of it, for steps that nobody can make again bit for bit.

A sum in BLAS may differ in its last bits from one start to the next. An aggregator that was killed after it published
would then announce other bytes. So the digests are durable first, under the opening and all of the closing that they
came from, and the next start takes the blobs that are there.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flb.records import Closing, closing_to_json
from flb.store import BlobStore, digest_of_file, write_atomic
from flb.types import ZERO_DIGEST, Digest, Opening

DIGESTS = ("adapter", "optimizer_state", "down", "remainder")


@dataclass(frozen=True, slots=True)
class Blobs:
    """Digests of what a step makes; zero for what the run has not: the optimizer's moments, the encoded step and its
    remainder. `figures` are for reports and no part of what the step is."""

    adapter: Digest
    optimizer_state: Digest = ZERO_DIGEST
    down: Digest = ZERO_DIGEST
    remainder: Digest = ZERO_DIGEST
    figures: Mapping[str, float] = field(default_factory=dict, compare=False)


class Note:
    """The note of one opening and closing, in a folder of its own."""

    def __init__(self, folder: Path, opening: Opening, closing: Closing) -> None:
        self.folder, self.round = folder, opening.round
        text = json.dumps({"base": opening.base.hex(), "closing": closing_to_json(closing)}, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.path = folder / f"{opening.round}-{opening.seed.hex()}-{digest}.json"

    def write(self, made: Blobs) -> None:
        """Keep what was made; the blobs are durable before. Notes of rounds before the last one go."""
        self.folder.mkdir(parents=True, exist_ok=True)
        noted = {name: getattr(made, name).hex() for name in DIGESTS}
        write_atomic(self.path, json.dumps({**noted, "figures": dict(made.figures)}).encode())
        for old in self.folder.glob("*-*-*.json"):
            if int(old.name.partition("-")[0]) < self.round - 1:
                old.unlink()

    def read(self, blobs: BlobStore) -> Blobs | None:
        """What was made before, if the note is whole and every blob of it is here unaltered; otherwise it is made again."""
        try:
            noted = json.loads(self.path.read_text())
            digests = {name: Digest(bytes.fromhex(noted[name])) for name in DIGESTS}
            figures = {str(name): float(value) for name, value in noted["figures"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        for digest in digests.values():
            if digest != ZERO_DIGEST and not (blobs.has(digest) and digest_of_file(blobs.path(digest)) == digest):
                return None
        return Blobs(**digests, figures=figures)
