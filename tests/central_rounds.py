# SPDX-License-Identifier: Apache-2.0
"""Rounds under central privacy on paper: specs, updates of any values, and the aggregator's own outcome."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flb import identity, records
from flb import spec as specs
from flb.admission import layout_of, update_metadata
from flb.privacy import central
from flb.records import Closing, Record
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Admitted, Digest, Opening, Step, TensorSpec
from flb.wire import container
from flb_aggregator import outcome
from flb_aggregator.publish import make_adapter_zero
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_for, manifest_for, opening, signed, small_spec

TENSORS = (TensorSpec("a.lora_A.weight", (2, 64)), TensorSpec("a.lora_B.weight", (64, 2)))


def central_spec(
    mechanism: str = "fixed", clip_norm: float = 0.5, multiplier: float = 1.0, epsilon: float = 0.0,
    tensors: Sequence[TensorSpec] = TENSORS, mode: str = "factors", denominator: int = 3, down: str = "f32",
) -> RunSpec:  # fmt: skip
    """A spec of rounds whose updates travel in float32."""
    privacy = central.plan(
        adaptive=mechanism == "adaptive", clip_norm=clip_norm, epsilon=None, multiplier=multiplier, delta=1e-5, steps=3,
        denominator=denominator, quantile=0.5, rate=0.2, bits_noise=None,
    )  # fmt: skip
    plain = small_spec(mode, "f32", down)
    return dataclasses.replace(
        plain, tensors=tuple(tensors), audit="off", privacy=dataclasses.replace(privacy, epsilon=epsilon),
        aggregation=dataclasses.replace(plain.aggregation, weights="equal"),
    )  # fmt: skip


def blob_of(spec: RunSpec, step: Step, values: np.ndarray, node: bytes = bytes(20), base: bytes = bytes(32)) -> bytes:
    """An update of these values, over all tensors that the step sends."""
    layout = layout_of(spec, step)
    header = container.header_of(layout.entries, update_metadata(bytes(32), node, base))  # type: ignore[arg-type]
    return header + values.astype("<f4").tobytes()


class Run:
    """An aggregator's work folder, a round at a time."""

    def __init__(self, spec: RunSpec, folder: Path) -> None:
        self.folder, self.blobs = folder, BlobStore(folder / "blobs")
        self.base = make_adapter_zero(spec.tensors, 0, self.blobs)
        self.spec, self.previous = dataclasses.replace(spec, adapter=self.base.hex()), ZERO_DIGEST
        self.size = sum(tensor.size for tensor in layout_of(spec, Step(1)).tensors)

    def closing(self, opened: Opening, updates: Sequence[np.ndarray]) -> Closing:
        """The updates, signed and admitted, in order of address."""
        admitted = []
        for member, values in zip(opened.cohort, updates, strict=False):
            blob = blob_of(self.spec, opened.step, values, member.node, opened.base)
            self.blobs.put(blob)
            manifest = manifest_for(self.spec, opened, member, blob)
            receipt = identity.receipt_hash(identity.receipt_for(manifest, 1))
            receipt_signature = identity.sign(AGGREGATOR_KEY, DOMAIN, receipt)
            admitted.append(Admitted(manifest, signed(manifest, key_for(member)), 1, receipt_signature))
        return Closing(tuple(admitted), (), ())

    def make(self, step: int, updates: Sequence[np.ndarray], number: int | None = None) -> Record:
        """Combine one round; the next call goes on from it where `seal` was called."""
        opened = opening(len(updates), number or step, step, self.base)
        roll = outcome.make(
            self.spec, specs.digest_of(self.spec.encode()), DOMAIN, opened, self.closing(opened, updates), self.previous,
            self.blobs, self.folder / "adapters",
        )  # fmt: skip
        self.made = roll
        return records.decode(self.blobs.get(roll.record_digest))

    def seal(self) -> None:
        """Take what was made last as the start of the next step."""
        self.base, self.previous = self.made.adapter_digest, self.made.record_digest

    def noised(self, record: Record) -> np.ndarray:
        """The integers of a record's noised sum."""
        assert record.noise is not None
        blob = self.blobs.get(Digest(record.noise.noised_sum))
        return np.frombuffer(blob[-8 * self.size :], dtype="<i8")
