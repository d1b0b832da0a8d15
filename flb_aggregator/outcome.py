# SPDX-License-Identifier: Apache-2.0
"""What a closed round comes to, on disk: the adapter, its folder, the encoded step with its remainder, the optimizer's
moments, the record; under central privacy the noised sum first.

Called again after a restart it gives the same bytes: it makes them again, or, where another sum in BLAS could differ,
reads in its note what it made.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from flb import moments, payouts, records, scoring
from flb.errors import BadMessage, CorruptStore
from flb.privacy import central, central_adaptive, noised_round
from flb.privacy.noised_round import NoisedRound
from flb.records import Closing, Record, Roll
from flb.spec import RunSpec
from flb.store import BlobStore, BlobWriter
from flb.types import ZERO_DIGEST, Address, Digest, Domain, Opening, Step
from flb_aggregator import noised_sum
from flb_aggregator.certify import bit_exact
from flb_aggregator.encoded_step import Down, Write
from flb_aggregator.made import Blobs, Note
from flb_aggregator.moments import Moments
from flb_aggregator.noise_keys import NoiseKeys
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
    draw: Callable[[int, str], bytes] = lambda count, name: os.urandom(count),
) -> Roll:
    """Combine, publish, record; `previous` is the last sealed round's record, zero for none. `report` gets figures of the
    round that its making gave, `draw` a noise key under central privacy. Raises CorruptStore, and Refused where a noised
    round would pass the run's budget."""
    inputs = inputs_of(closing, blobs)
    before = record_before(previous, blobs)
    left = left_by(before, blobs.path)
    standings = payouts.after(
        before.standings if before is not None else (), scoring.of_round(closing.admitted, spec), spec.scoring.payout
    )
    note = Note(adapters.parent / "made", opening, closing)
    noise = None
    if spec.privacy.central:
        keys = NoiseKeys(adapters.parent / "noise", domain.run, draw)
        keys.forget(opening.step)
        noise = noise_sum(spec, opening, closing, before, [item.path for item in inputs], keys, blobs)
        inputs = [Input(1, blobs.path(noise.noised_sum))]
    made = None if bit_exact(spec) else note.read(blobs)
    if made is None:
        base = blobs.path(opening.base)
        made = blobs_of(spec, domain.run, opening.step, opening.base, base, left, inputs, blobs)
        if not bit_exact(spec):
            note.write(made)
    report(made.figures if noise is None else noised_round.figures(noise))
    publish_folder(adapters, spec, opening.step, blobs, made.adapter)
    record = records.make(
        domain, spec_digest, opening, previous, closing, made.adapter, made.optimizer_state, made.down, made.remainder,
        standings=standings, round_payout=spec.scoring.payout, noise=noise,
    )  # fmt: skip
    blob = records.encode(record)
    blobs.put(blob)
    return records.roll_of(record, blob)


def noise_sum(
    spec: RunSpec,
    opening: Opening,
    closing: Closing,
    before: Record | None,
    paths: list[Path],
    keys: NoiseKeys,
    blobs: BlobStore,
) -> NoisedRound:
    """Clip and noise the updates into the blob that the step follows from; what the record says of it. Raises as `make`."""
    privacy, ring = spec.privacy, spec.ring
    clip_norm = clip_norm_after(spec, before)
    key, releases = keys.take(privacy, opening, closing)
    with blobs.writer() as out:
        unclipped = noised_sum.write(spec, opening.step, clip_norm, paths, key, out.write)
        digest = out.commit()
    share, following = None, clip_norm
    if privacy.mechanism == "central_adaptive":
        share = central_adaptive.noised_share(privacy, unclipped, len(paths), key)
        following = central_adaptive.following(privacy, ring, clip_norm, share)
    return NoisedRound(
        digest, clip_norm, central.sigma_of(privacy, clip_norm),
        central.told_epsilon(central.epsilon_after(privacy, releases)), privacy.delta, releases, share, following,
    )  # fmt: skip


def forget_keys(adapters: Path, run: Address) -> None:
    """Delete all noise keys of a run that is finished."""
    NoiseKeys(adapters.parent / "noise", run, lambda count, name: b"").forget()


def clip_norm_after(spec: RunSpec, before: Record | None) -> float:
    """C of the round after a record: what that round moved it to, the spec's at first."""
    return before.noise.next_clip_norm if before is not None and before.noise is not None else spec.privacy.clip_norm


class Left(NamedTuple):
    """Files that the step before left to this one; None for what there is not, and before the first step."""

    remainder: Path | None = None
    optimizer_state: Path | None = None


def left_by(before: Record | None, path: Callable[[Digest], Path]) -> Left:
    """What the round of a record left, None before the first; `path` says where a blob is."""
    if before is None:
        return Left()
    digests = (before.remainder, before.optimizer_state)
    return Left(*(path(digest) if digest != ZERO_DIGEST else None for digest in digests))


def blobs_of(
    spec: RunSpec,
    run: Address,
    step: Step,
    base: Digest,
    base_path: Path,
    left: Left,
    inputs: Sequence[Input],
    blobs: BlobStore,
) -> Blobs:
    """Write what a step makes, from what the step before left."""
    made: dict[str, BlobWriter] = {}
    with ExitStack() as stack:

        def writer(name: str) -> Write:
            made[name] = stack.enter_context(blobs.writer())
            return made[name].write

        write, to, kept = writer("adapter"), None, None
        if spec.encodes_steps:
            to = Down(run, base, left.remainder, writer("down"), writer("remainder"))
        if moments.keeps_moments(spec):
            kept = Moments(left.optimizer_state, writer("optimizer_state"))
        gap = combine(spec, step, base_path, inputs, write, to=to, moments=kept)
        figures = gap.figures if gap is not None else {}
        return Blobs(**{name: blob.commit() for name, blob in made.items()}, figures=figures)


def figures_of(
    spec: RunSpec, opening: Opening, closing: Closing, blobs: BlobStore, threads: int | None = None
) -> Mapping[str, float]:
    """What is known of a round only by another pass over its updates; empty where there is nothing. Raises CorruptStore."""
    gap = measure_gap(spec, opening.step, blobs.path(opening.base), inputs_of(closing, blobs), threads)
    return gap.figures if gap is not None else {}


def inputs_of(closing: Closing, blobs: BlobStore) -> list[Input]:
    """The round's admitted updates, in order of node address."""
    return [Input(item.weight, blobs.path(item.manifest.digest)) for item in closing.admitted]


def record_before(previous: Digest, blobs: BlobStore) -> Record | None:
    """The record of the last sealed round, whose standings, remainder and moments go on; None before the first. Raises
    CorruptStore."""
    if previous == ZERO_DIGEST:
        return None
    try:
        return records.decode(blobs.get(previous))
    except BadMessage as error:
        raise CorruptStore(f"the record {previous.hex()} is not one of this program", "restore it") from error
