# SPDX-License-Identifier: Apache-2.0
"""A sealed round whose adapter no other machine makes bit for bit: digests, exact part, and a certificate of each module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flb.audit import Finding
from flb.errors import FLBError
from flb.events import ChainRoundRolled
from flb.spec import RunSpec
from flb.store import digest_of_file
from flb.types import Digest, Step
from flb_aggregator.pipeline import Input, certify_adapter


@dataclass(frozen=True, slots=True)
class Start:
    """What the round starts from: its step, and the adapter's digest on chain and file."""

    step: Step
    digest: Digest
    path: Path


def certify_round(
    rolled: ChainRoundRolled, start: Start, inputs: Sequence[Input], spec: RunSpec, published: Path, told: bool
) -> tuple[list[Finding], Mapping[str, float]]:
    """Findings about the published adapter, and figures of the round. `told` says that an update's bytes were found to
    differ, which then explains what cannot be read."""
    number = rolled.round
    found: list[Finding] = []
    if digest_of_file(published) != rolled.adapter_digest:
        found.append(Finding("the published adapter's bytes differ from the digest on chain", number))
    if digest_of_file(start.path) != start.digest:
        found.append(Finding("the adapter that it starts from differs from the digest on chain", number))
    try:
        failed, gap = certify_adapter(spec, start.step, start.path, inputs, published)
    except FLBError as error:
        return found + ([] if told else [Finding(error.what, number)]), {}
    what = "the published adapter is not the best product of the admitted updates"
    return found + [Finding(what, number, tensor=module) for module in failed], gap.figures
