# SPDX-License-Identifier: Apache-2.0
"""What a closed round comes to, on disk: the adapter, its folder, the encoded step with its remainder, the record.

Pure in its inputs: called again after a restart it writes the same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flb import payouts, records, scoring
from flb.admission import rank_of_size
from flb.errors import BadMessage, CorruptStore
from flb.records import Closing, Record, Roll
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Opening, Step
from flb_aggregator.encoded_step import Down
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import publish_folder


def make(
    spec: RunSpec,
    spec_digest: Digest,
    domain: Domain,
    opening: Opening,
    closing: Closing,
    previous: Digest,
    blobs: BlobStore,
    adapters: Path,
) -> Roll:
    """Combine, publish, record; `previous` is the last sealed round's record, zero for none. Raises CorruptStore."""
    inputs = [
        Input(item.weight, blobs.path(item.manifest.digest), rank_of_size(spec, opening.step, item.manifest.size))
        for item in closing.admitted
    ]
    before = record_before(previous, blobs)
    remainder = blobs.path(before.remainder) if before is not None and spec.encodes_steps else None
    standings = payouts.after(
        before.standings if before is not None else (), scoring.of_round(closing.admitted, spec), spec.scoring.payout
    )
    made = blobs_of(spec, domain.run, opening.step, opening.base, blobs.path(opening.base), remainder, inputs, blobs)
    publish_folder(adapters, spec, opening.step, blobs, made.adapter)
    record = records.make(
        domain, spec_digest, opening, previous, closing, made.adapter, made.optimizer_state, made.down, made.remainder,
        standings=standings, round_payout=spec.scoring.payout,
    )  # fmt: skip
    blob = records.encode(record)
    blobs.put(blob)
    return records.roll_of(record, blob)


@dataclass(frozen=True, slots=True)
class Blobs:
    """Digests of what a step makes; zero for what the run has not: the optimizer's moments, the encoded step and its
    remainder."""

    adapter: Digest
    optimizer_state: Digest = ZERO_DIGEST
    down: Digest = ZERO_DIGEST
    remainder: Digest = ZERO_DIGEST


def blobs_of(
    spec: RunSpec,
    run: Address,
    step: Step,
    base: Digest,
    base_path: Path,
    remainder: Path | None,
    inputs: Sequence[Input],
    blobs: BlobStore,
) -> Blobs:
    """Write what a step makes. `remainder` is what encoding the step before left."""
    with blobs.writer() as out:
        if not spec.encodes_steps:
            combine(spec, step, base_path, inputs, out.write)
            return Blobs(out.commit())
        with blobs.writer() as step_out, blobs.writer() as left:
            combine(spec, step, base_path, inputs, out.write, to=Down(run, base, remainder, step_out.write, left.write))
            return Blobs(out.commit(), down=step_out.commit(), remainder=left.commit())


def record_before(previous: Digest, blobs: BlobStore) -> Record | None:
    """The record of the last sealed round, whose standings and remainder go on; None before the first. Raises
    CorruptStore."""
    if previous == ZERO_DIGEST:
        return None
    try:
        return records.decode(blobs.get(previous))
    except BadMessage as error:
        raise CorruptStore(f"the record {previous.hex()} is not one of this program", "restore it") from error
