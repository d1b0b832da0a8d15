# SPDX-License-Identifier: Apache-2.0
"""A sealed round whose adapter no other machine makes bit for bit: digests, exact part, and a certificate of each module.

Where the server optimizer keeps moments, adapter and moments are made again and compared within tolerance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flb import moments
from flb.audit import Finding
from flb.errors import FLBError
from flb.records import Record
from flb.spec import RunSpec
from flb.store import BlobStore, digest_of_file
from flb.types import ZERO_DIGEST, Address, Digest, Step
from flb_aggregator import certify
from flb_aggregator.files import Files
from flb_aggregator.outcome import Left, blobs_of
from flb_aggregator.pipeline import Input, certify_adapter, measure_gap


@dataclass(frozen=True, slots=True)
class Start:
    """What the round starts from: its step, the adapter's digest on chain and file, and what the step before left."""

    run: Address
    step: Step
    digest: Digest
    path: Path
    left: Left


def published_in(record: Record) -> list[Digest]:
    """The adapter that a record names, and the optimizer state where there is one."""
    return [digest for digest in (record.adapter, record.optimizer_state) if digest != ZERO_DIGEST]


def gap_of(start: Start, inputs: Sequence[Input], spec: RunSpec) -> Mapping[str, float]:
    """Figures of a round whose adapter was recomputed bit for bit, for its line; empty where there are none."""
    gap = measure_gap(spec, start.step, start.path, inputs)
    return gap.figures if gap is not None else {}


def certify_round(
    record: Record,
    start: Start,
    inputs: Sequence[Input],
    spec: RunSpec,
    published: Sequence[Path],
    scratch: BlobStore,
    told: bool,
) -> tuple[list[Finding], Mapping[str, float]]:
    """Findings about what the round published, the files of `published_in`, and figures of the round. `told` says that an
    update's bytes were found to differ, which then explains what cannot be read."""
    number, found = record.round, list[Finding]()
    for path, digest, what in zip(published, published_in(record), ("adapter", "optimizer state"), strict=False):
        if digest_of_file(path) != digest:
            found.append(Finding(f"the published {what}'s bytes differ from the digest on chain", number))
    if digest_of_file(start.path) != start.digest:
        found.append(Finding("the adapter that it starts from differs from the digest on chain", number))
    if len(published) != 1 + moments.keeps_moments(spec):
        return [*found, Finding("the record names an optimizer state that the run has not, or none", number)], {}
    try:
        failed, figures = judge(start, inputs, spec, published, scratch)
    except FLBError as error:
        return found + ([] if told else [Finding(error.what, number)]), {}
    return found + [Finding(what, number, tensor=module) for what, module in failed], figures


def judge(
    start: Start, inputs: Sequence[Input], spec: RunSpec, published: Sequence[Path], scratch: BlobStore
) -> tuple[list[tuple[str, str | None]], Mapping[str, float]]:
    """What does not stand, with the module where it can be told, and figures of the round. Raises FLBError."""
    what = "the published adapter is not the best product of the admitted updates"
    if not moments.keeps_moments(spec):
        failed, gap = certify_adapter(spec, start.step, start.path, inputs, published[0])
        return [(what, module) for module in failed], gap.figures
    made = blobs_of(spec, start.run, start.step, start.digest, start.path, start.left, inputs, scratch)
    with Files([scratch.path(made.adapter), published[0]]) as files:
        found: list[tuple[str, str | None]] = [(what, module) for module in certify.near(spec, files)]
    own = scratch.path(made.optimizer_state)
    other = "the published optimizer state is not what the admitted updates make"
    found += [(other, tensor) for tensor in certify.near_moments(spec, start.step, own, published[1])]
    return found, made.figures
