# SPDX-License-Identifier: Apache-2.0
"""Recompute a run from its events and blobs, with the aggregator's own pipeline, and say what was proved.

Verdicts: `exact` every step recomputed to the same bytes; `certified` steps that have no such bytes passed their
certificate; `partial` all that could be seen is right; `fail` something differs, and the findings name round, tensor
and node. docs/verify.md has the table.
"""

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flb import audit, records
from flb import events as chain
from flb import spec as specs
from flb.adapter_blob import form_of
from flb.audit import Finding
from flb.errors import FLBError
from flb.events import ChainEvent
from flb.payouts import Standing
from flb.records import Record
from flb.roster import RunView, fold
from flb.spec import RunSpec
from flb.store import BlobStore, digest_of_file
from flb.types import ZERO_DIGEST, Digest, Domain, Round
from flb_aggregator.certify import bit_exact
from flb_aggregator.made import Blobs
from flb_aggregator.outcome import Left, blobs_of
from flb_aggregator.publish import make_adapter_zero
from flb_cli.replay_certificate import Start, certify_round, gap_of, published_in
from flb_cli.replay_left import left_before
from flb_cli.replay_noised import check_noise, checked_inputs, summands, trusted

Fetch = Callable[[Digest], Path | None]
"""The file of a blob, whatever its bytes; None where it cannot be seen."""


@dataclass(slots=True)
class Report:
    """What came out; `proved`, `trusted` and `unchecked` are sentences."""

    findings: list[Finding] = field(default_factory=list)
    proved: list[str] = field(default_factory=list)
    trusted: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    rounds: list[dict[str, object]] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """exact, certified, partial or fail."""
        if self.findings:
            return "fail"
        if self.unchecked:
            return "partial"
        return "certified" if any(line.get("certified") for line in self.rounds) else "exact"


def replay(
    events: Sequence[ChainEvent], domain: Domain, fetch: Fetch, progress: Callable[[str], None] = lambda text: None
) -> Report:
    """Check a whole run."""
    report = Report()
    view = fold(events)
    report.findings += audit.check_hash_chain(events)
    if view.spec == ZERO_DIGEST:
        if view.rolls:
            report.findings.append(Finding("rounds are sealed, but the events do not hold the start of the run"))
        report.unchecked.append("the run has not started")
        return report
    if not view.rolls:
        report.unchecked.append("no round is sealed yet")
    spec_path = fetch(view.spec)
    if spec_path is None:
        report.unchecked.append("the run spec cannot be seen, so no round was recomputed")
        return report
    try:
        if digest_of_file(spec_path) != view.spec:
            report.findings.append(Finding("the run spec's bytes differ from the digest on chain"))
            return report
        spec = specs.decode(spec_path.read_bytes())
    except FLBError as error:
        report.findings.append(Finding(f"the run spec: {error.what}"))
        return report
    with tempfile.TemporaryDirectory(prefix="flb-verify-") as folder:
        scratch = BlobStore(Path(folder))
        check_adapter_zero(spec, events, scratch, report)
        before = Before(ZERO_DIGEST, None, ())
        for rolled in view.rolls:
            progress(f"round {rolled.round}")
            record = check_round(rolled, before, spec, view, events, domain, fetch, scratch, report)
            before = Before(rolled.record_digest, record, record.standings if record else None)
    sealed = len(view.rolls)
    if not report.findings:
        report.proved.append(f"the hash chain of {sealed} sealed rounds follows from the registry's events")
        read = sum("updates" in line for line in report.rounds)
        made = sum(bool(line.get("recomputed")) for line in report.rounds)
        report.proved.append(f"signatures, weights and receipts of {read} of {sealed} rounds agree with the chain")
        if bit_exact(spec):
            source = "noised sums" if spec.privacy.central else "updates"
            report.proved.append(f"{made} of {sealed} adapters were recomputed from their {source} to the same bytes")
        else:
            stand = sum(bool(line.get("certified")) for line in report.rounds)
            report.proved.append(
                f"{stand} of {sealed} adapters passed the certificate of the best product of their updates"
            )
        scored = sum(bool(line.get("scored")) for line in report.rounds)
        report.proved.append(f"scores and payouts of {scored} of {sealed} rounds were recomputed to the roots on chain")
    report.trusted += trusted(spec)
    report.trusted.append("nodes trained honestly on the data that they committed to")
    return report


def check_adapter_zero(spec: RunSpec, events: Sequence[ChainEvent], scratch: BlobStore, report: Report) -> None:
    """Adapter 0 follows from the spec."""
    made = make_adapter_zero(spec.tensors, spec.training.seed, scratch)
    on_chain = next(event.adapter_digest for event in events if isinstance(event, chain.ChainRunStarted))
    if made.hex() != spec.adapter or made != on_chain:
        report.findings.append(Finding("adapter 0 does not follow from the spec's seed"))
    else:
        report.proved.append("adapter 0 follows from the spec's seed")


def aggregator_of(events: Sequence[ChainEvent], number: Round) -> bytes:
    """Who led a round: the newest AggregatorSet that counts from it or earlier."""
    current = b""
    for event in events:
        if isinstance(event, chain.ChainAggregatorSet) and event.round <= number:
            current = event.aggregator
    return current


@dataclass(frozen=True, slots=True)
class Before:
    """What a round starts from: digest of the record of the last sealed round, the record, and its standings; None where
    they cannot be seen."""

    previous: Digest
    record: Record | None
    standings: tuple[Standing, ...] | None


def check_round(
    rolled: chain.ChainRoundRolled,
    before: Before,
    spec: RunSpec,
    view: RunView,
    events: Sequence[ChainEvent],
    domain: Domain,
    fetch: Fetch,
    scratch: BlobStore,
    report: Report,
) -> Record | None:
    """One sealed round: record, scores, updates, adapter, and the encoded step with its remainder where the run has
    them. Returns the record, None where it cannot be told."""
    number = rolled.round
    opened = view.openings.get(number)
    if opened is None:
        report.findings.append(Finding("the events do not hold the opening of this round", number))
        return None
    line: dict[str, object] = {"round": number, "step": opened.step, "adapter": rolled.adapter_digest.hex()}
    report.rounds.append(line)
    path = fetch(rolled.record_digest)
    if path is None:
        report.unchecked.append(f"round {number}: its record cannot be seen")
        return None
    blob = path.read_bytes()
    if hashlib.sha256(blob).digest() != rolled.record_digest:
        report.findings.append(Finding(f"the record's bytes differ from the chain{_field(blob, rolled)}", number))
        return None
    try:
        record = records.decode(blob)
    except FLBError as error:
        report.findings.append(Finding(error.what, number))
        return None
    found = list(
        audit.check_record(
            record,
            rolled,
            opened,
            previous=before.previous,
            spec=spec,
            spec_digest=view.spec,
            domain=domain,
            aggregator=aggregator_of(events, number),  # type: ignore[arg-type]
        )
    )
    wrong = list(audit.check_scores(record, rolled, before.standings, spec))
    report.findings += found + wrong
    if before.standings is None:
        report.unchecked.append(f"round {number}: the record before cannot be seen, scores and payouts not recomputed")
    line["scored"] = before.standings is not None and not wrong
    line["updates"] = len(record.closing.admitted)

    def seen(digest: Digest) -> Path | None:
        return scratch.path(digest) if scratch.has(digest) else fetch(digest)

    base = seen(opened.base)
    report.findings += check_noise(record, before.record, spec)
    paths = [fetch(digest) for digest in summands(record, spec)]
    if base is None or not paths or any(path is None for path in paths):
        hidden, what = sum(path is None for path in paths), "noised sums" if spec.privacy.central else "updates"
        report.unchecked.append(f"round {number}: {hidden} of {len(paths)} {what} cannot be seen, not recomputed")
        return record

    left = (
        Left()
        if before.previous == ZERO_DIGEST
        else left_before(before.record, spec, number, seen, report.unchecked, report.findings)
    )
    if left is None:
        return record
    altered, inputs = checked_inputs(record, spec, [path for path in paths if path is not None])
    if not bit_exact(spec):
        start = Start(domain.run, opened.step, opened.base, base, left)
        published = [fetch(digest) for digest in published_in(record)]
        if any(path is None for path in published):
            report.unchecked.append(f"round {number}: its adapter or optimizer state cannot be seen, not certified")
            return record
        seen_too = [path for path in published if path is not None]
        judged, figures = certify_round(record, start, inputs, spec, seen_too, scratch, told=bool(altered))
        report.findings += altered + judged
        line |= {**figures, "certified": not (altered or judged)}
        return record
    try:
        made = blobs_of(spec, domain.run, opened.step, opened.base, base, left, inputs, scratch)
    except FLBError as error:
        report.findings += altered or [Finding(error.what, number)]
        return record
    report.findings += compare(made.adapter, rolled.adapter_digest, spec, number, altered, scratch, fetch)
    if not altered:
        report.findings += compare_step(record, made, number, fetch)
    line.update(gap_of(Start(domain.run, opened.step, opened.base, base, left), inputs, spec))
    line["recomputed"] = made == Blobs(rolled.adapter_digest, record.optimizer_state, record.down, record.remainder)
    return record


def compare(
    made: Digest,
    on_chain: Digest,
    spec: RunSpec,
    number: Round,
    altered: list[Finding],
    scratch: BlobStore,
    fetch: Fetch,
) -> Iterator[Finding]:
    """Recomputed against published: names the first tensor that differs, and the node whose update was altered."""
    published = fetch(on_chain)
    if made == on_chain and not altered:
        if published is not None and digest_of_file(published) != on_chain:
            tensor = first_tensor(scratch.path(made), published, spec)
            yield Finding("the published adapter's bytes differ from the digest on chain", number, tensor=tensor)
        return
    tensor = first_tensor(scratch.path(made), published, spec) if published is not None else None
    if altered:
        for finding in altered:
            yield Finding(finding.what, finding.round, finding.node, tensor)
        return
    yield Finding("the adapter on chain is not what the admitted updates make", number, tensor=tensor)


def compare_step(record: Record, blobs: Blobs, number: Round, fetch: Fetch) -> Iterator[Finding]:
    """What the step made besides the adapter, recomputed, against the record and the published blobs."""
    parts = (("encoded step", "down"), ("remainder", "remainder"), ("optimizer state", "optimizer_state"))
    for what, name in parts:
        made, named = getattr(blobs, name), getattr(record, name)
        if made != named:
            yield Finding(f"the {what} in the record is not what the admitted updates make", number)
        elif made != ZERO_DIGEST and (path := fetch(named)) is not None and digest_of_file(path) != named:
            yield Finding(f"the published {what}'s bytes differ from the digest in the record", number)


def first_tensor(one: Path, other: Path, spec: RunSpec) -> str | None:
    """Name of the first tensor in which two adapter files differ; `header` before the data. `one` was made here."""
    with one.open("rb") as left, other.open("rb") as right:
        form = form_of(spec, left.read)
        if form.header != right.read(len(form.header)):
            return "header"
        for tensor in form.tensors:
            if left.read(4 * tensor.size) != right.read(4 * tensor.size):
                return tensor.name
    return None


def _field(blob: bytes, rolled: chain.ChainRoundRolled) -> str:
    """In words, which of the record's fields the flip hit, where that can be told."""
    try:
        record = records.decode(blob)
    except FLBError:
        return " and are no record any more"
    for name in ("adapter_digest", "updates_root", "scores_root", "payout_root", "weight_sum"):
        own = "adapter" if name == "adapter_digest" else name
        if getattr(record, own) != getattr(rolled, name):
            return f" ({own})"
    return ""
