# SPDX-License-Identifier: Apache-2.0
"""How a node gets an adapter: as the encoded step from the one it holds, where the run says so, or whole.

Either way the bytes have the digest that the chain names, so a wrong step costs time and nothing else: then the whole
adapter is fetched.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flb import down, records
from flb.adapter_blob import largest_size
from flb.admission import BlockReader, ReadInto
from flb.delta import BLOCK, add_step
from flb.errors import AggregatorUnavailable, BadContainer, Busy, DigestMismatch, Impostor, PeerFault, Unavailable
from flb.records import Record
from flb.roster import RunView
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest
from flb.wire import container
from flb_node.answers import Announcement
from flb_node.uplink import Uplink

RECORD_LIMIT = 64 << 20
"""Bytes that are taken for a record; one of 4096 updates has 6 MiB."""


def record_of(adapter: Digest, view: RunView, told: Announcement | None) -> Digest:
    """The record of the round that made an adapter, by the chain or else as announced; zero where neither knows."""
    for roll in reversed(view.rolls):
        if roll.adapter_digest == adapter:
            return roll.record_digest
    return told.record if told is not None and told.base == adapter else ZERO_DIGEST


def fetch_adapter(
    uplink: Uplink, blobs: BlobStore, spec: RunSpec, adapter: Digest, record: Digest, log: Callable[[str], None]
) -> Path:
    """Bring an adapter into `blobs`; `record` is the round's that made it, zero where it is not known.

    Raises AggregatorUnavailable, Busy, or the aggregator's refusal of the whole adapter.
    """
    if blobs.has(adapter):
        return blobs.path(adapter)
    if spec.encodes_steps and record != ZERO_DIGEST:
        try:
            made = by_step(uplink, blobs, spec, adapter, record)
        except (Impostor, Busy):
            raise
        except (PeerFault, AggregatorUnavailable) as error:
            log(f"the encoded step cannot be used ({error.what}); fetching the whole adapter")
        else:
            if made is not None:
                return made
    return uplink.download(adapter, blobs, limit=largest_size(spec))


def keep_record(uplink: Uplink, blobs: BlobStore, adapter: Digest, view: RunView, log: Callable[[str], None]) -> None:
    """Bring the record of the round that made an adapter into `blobs` where it names payouts: a claim's proof comes from
    it, and must not hang on an aggregator that may be gone by then. Another chance comes with the next round."""
    rolled = next((roll for roll in reversed(view.rolls) if roll.adapter_digest == adapter), None)
    if rolled is None or rolled.payout_root == ZERO_DIGEST or blobs.has(rolled.record_digest):
        return
    try:
        uplink.download(rolled.record_digest, blobs, limit=RECORD_LIMIT)
    except (PeerFault, Unavailable) as error:
        log(f"the record of round {rolled.round}, which a claim needs, cannot be fetched: {error.what}")


def by_step(uplink: Uplink, blobs: BlobStore, spec: RunSpec, adapter: Digest, digest: Digest) -> Path | None:
    """The adapter from the one before it and the step blob; None where that one is not here. Raises PeerFault."""
    path = uplink.download(digest, blobs, limit=RECORD_LIMIT)
    record = records.decode(path.read_bytes())
    if record.adapter != adapter or not blobs.has(record.base):
        return None
    layout = down.step_layout(spec, record.step, record.base)
    step = uplink.download(record.down, blobs, limit=layout.size)
    return apply(spec, record, step, blobs)


def apply(spec: RunSpec, record: Record, step: Path, blobs: BlobStore) -> Path:
    """adapter' = float32(float64(adapter) + float64(d)), block by block. Raises BadContainer, DigestMismatch."""
    layout = down.step_layout(spec, record.step, record.base)
    numbers = {tensor.name: number for number, tensor in enumerate(layout.tensors)}
    header = container.adapter_header(spec.tensors)
    reader, block = BlockReader(layout), np.empty(BLOCK, dtype="<f4")
    with step.open("rb", buffering=0) as coded, blobs.path(record.base).open("rb", buffering=0) as base:
        source = reading(coded.fileno())
        if os.pread(coded.fileno(), layout.header_size, 0) != down.step_header(spec, record.step, record.base):
            raise BadContainer("the encoded step is not of the form that the run spec gives", "ask the operator")
        base.seek(len(header))
        with blobs.writer() as out:
            out.write(header)
            for tensor in spec.tensors:
                for start in range(0, tensor.size, BLOCK):
                    values = block[: min(BLOCK, tensor.size - start)]
                    if base.readinto(values.data.cast("B")) != values.nbytes:
                        raise DigestMismatch("the adapter before it is damaged on this disk", "it is fetched again")
                    if tensor.name in numbers:
                        moved = reader.values(source, numbers[tensor.name], start, values.size)
                        values[:] = add_step(values, moved.astype(np.float64))
                    out.write(values.data.cast("B"))
            if out.digest != record.adapter:
                raise DigestMismatch("the encoded step makes another adapter", "ask the operator")
            out.commit()
    return blobs.path(record.adapter)


def reading(descriptor: int) -> ReadInto:
    """An open file as a source of blocks."""
    return lambda offset, part: os.preadv(descriptor, [part], offset)
