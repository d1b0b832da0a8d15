# SPDX-License-Identifier: Apache-2.0
"""What a recomputed round starts from besides the adapter: files of the step before, held against their record."""

from collections.abc import Callable
from pathlib import Path

from flb.audit import Finding
from flb.moments import keeps_moments
from flb.records import Record
from flb.spec import RunSpec
from flb.store import digest_of_file
from flb.types import ZERO_DIGEST, Digest, Round
from flb_aggregator.outcome import Left


def left_before(
    before: Record | None,
    spec: RunSpec,
    number: Round,
    seen: Callable[[Digest], Path | None],
    unchecked: list[str],
    findings: list[Finding],
) -> Left | None:
    """The remainder and the optimizer state that the record before names, where the run has them. None where one cannot be
    seen, which is added to `unchecked`, or has another digest, which is added to `findings`."""
    has = {"remainder": spec.encodes_steps, "optimizer_state": keeps_moments(spec)}
    paths: dict[str, Path] = {}
    for name in (name for name in has if has[name]):
        what, digest = name.replace("_", " "), getattr(before, name, ZERO_DIGEST)
        path = seen(digest)
        if path is None:
            unchecked.append(f"round {number}: the {what} of the step before cannot be seen, not recomputed")
            return None
        if digest_of_file(path) != digest:
            findings.append(Finding(f"the {what} that it starts from differs from the record before", number))
            return None
        paths[name] = path
    return Left(**paths)
