# SPDX-License-Identifier: Apache-2.0
"""A node of a simulated run: keys, secret and dataset of its own, and the node's own way from training to a manifest.

Keys and secrets follow from the run's salt and the node's number, so a run that is repeated gives the same bytes.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flb import identity
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Manifest, Member, Opening, Step
from flb_node import commitment, pipeline
from flb_node.local_privacy import LocalPrivacy
from flb_node.pipeline import Sealed, Train


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `number` counts from 1, `secret` salts its records and updates, `dataset` is root and number of
    records, `folder` holds its state, `train` trains on its data, at `rank` (None: the run's own)."""

    number: int
    address: Address
    key: bytes
    secret: bytes
    dataset: tuple[Digest, int]
    folder: Path
    train: Train
    records: Iterable[bytes] = ()  # for the privacy ledger, which lies in the folder
    rank: int | None = None

    def member(self) -> Member:
        """As the registry lists it."""
        return Member(self.address, self.address, self.address, *self.dataset)

    def seal(self, opening: Opening, spec: RunSpec, domain: Domain, blobs: BlobStore) -> Sealed:
        """Train and seal, by the pipeline of `flb-node`. Raises PeerFault or TrainingFailed for a training that diverged."""
        return pipeline.seal_update(
            spec, opening.step, opening.base, run=domain.run, node=self.address, secret=self.secret, blobs=blobs,
            folder=self.folder, train=self.train, rank=self.rank, privacy=self.privacy(domain),
        )  # fmt: skip

    def privacy(self, domain: Domain) -> LocalPrivacy:
        """Noise keys that follow from the secret: a repeated simulation gives the same noise, so it hides nothing from
        who knows the salt."""

        def key(step: Step, base: Digest) -> bytes:
            return hashlib.sha256(b"flb simulated noise" + self.secret + step.to_bytes(4, "big") + base).digest()

        return LocalPrivacy(domain.run, self.folder, self.folder / "privacy", lambda: self.records, draw_key=key)

    def manifest(self, opening: Opening, spec: RunSpec, spec_digest: Digest, sealed: Sealed) -> Manifest:
        """What it signs for this opening."""
        root, records = self.dataset
        return Manifest(
            node=self.address, round=opening.round, seed=opening.seed, spec=spec_digest, base=opening.base,
            digest=sealed.digest, tensor_root=ZERO_DIGEST, dataset_root=root, size=sealed.size, examples=records,
            codec=spec.wire_codec,
        )  # fmt: skip


def make(number: int, salt: str, records: Iterable[bytes], folder: Path, train: Train, rank: int | None = None) -> Node:
    """A node with its folder; `salt` is the run's."""
    folder.mkdir(parents=True, exist_ok=True)
    key, secret = (
        hashlib.sha256(f"flb simulated node {what} {salt} {number}".encode()).digest() for what in ("key", "secret")
    )
    kept, address = tuple(records), identity.address_of(key)
    return Node(number, address, key, secret, commitment.commit(address, kept, secret), folder, train, kept, rank)
