# SPDX-License-Identifier: Apache-2.0
"""What a closed round comes to, on disk: the adapter, its folder, the encoded step with its remainder, the record.

Called again after a restart it gives the same bytes: it makes them again, or, where another sum in BLAS could differ,
reads in its note what it made.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from flb import payouts, records, scoring
from flb.errors import BadMessage, CorruptStore
from flb.records import Closing, Record, Roll
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Opening, Step
from flb_aggregator.certify import bit_exact
from flb_aggregator.encoded_step import Down
from flb_aggregator.made import Blobs, Note
from flb_aggregator.pipeline import Input, combine, measure_gap
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
    report: Callable[[Mapping[str, float]], None] = lambda figures: None,
) -> Roll:
    """Combine, publish, record; `previous` is the last sealed round's record, zero for none. `report` gets figures of the
    round, where there are any. Raises CorruptStore."""
    inputs = [Input(admitted.weight, blobs.path(admitted.manifest.digest)) for admitted in closing.admitted]
    before = record_before(previous, blobs)
    remainder = blobs.path(before.remainder) if before is not None and spec.encodes_steps else None
    standings = payouts.after(
        before.standings if before is not None else (), scoring.of_round(closing.admitted, spec), spec.scoring.payout
    )
    note = Note(adapters.parent / "made", opening, closing)
    made = None if bit_exact(spec) else note.read(blobs)
    if made is None:
        base = blobs.path(opening.base)
        made = blobs_of(spec, domain.run, opening.step, opening.base, base, remainder, inputs, blobs)
        if not bit_exact(spec):
            note.write(made)
    report(made.figures)
    publish_folder(adapters, spec, opening.step, blobs, made.adapter)
    record = records.make(
        domain, spec_digest, opening, previous, closing, made.adapter, made.optimizer_state, made.down, made.remainder,
        standings=standings, round_payout=spec.scoring.payout,
    )  # fmt: skip
    blob = records.encode(record)
    blobs.put(blob)
    return records.roll_of(record, blob)


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
            gap = combine(spec, step, base_path, inputs, out.write) or measure_gap(spec, step, base_path, inputs)
            return Blobs(out.commit(), figures=gap.figures if gap else {})
        with blobs.writer() as step_out, blobs.writer() as left:
            combine(spec, step, base_path, inputs, out.write, to=Down(run, base, remainder, step_out.write, left.write))
            gap = measure_gap(spec, step, base_path, inputs)
            return Blobs(
                out.commit(), down=step_out.commit(), remainder=left.commit(), figures=gap.figures if gap else {}
            )


def record_before(previous: Digest, blobs: BlobStore) -> Record | None:
    """The record of the last sealed round, whose standings and remainder go on; None before the first. Raises
    CorruptStore."""
    if previous == ZERO_DIGEST:
        return None
    try:
        return records.decode(blobs.get(previous))
    except BadMessage as error:
        raise CorruptStore(f"the record {previous.hex()} is not one of this program", "restore it") from error
