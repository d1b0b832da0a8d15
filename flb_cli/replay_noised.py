# SPDX-License-Identifier: Apache-2.0
"""A sealed round under central privacy: what its record says of the noise, held against spec and record before.

The step follows from the published noised sum, which anybody can recompute. That the sum is that of the clipped updates,
and that the noise is as large as the record says, rests on trust: nobody but the aggregator may see either.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from flb.audit import Finding
from flb.privacy import central, central_adaptive
from flb.privacy.accountant import MARGIN
from flb.records import Record
from flb.spec import RunSpec
from flb.store import digest_of_file
from flb.types import Digest
from flb_aggregator.outcome import clip_norm_after
from flb_aggregator.pipeline import Input
from flb_cli.replay_updates import check_updates

SHARE = 1e-9
"""Of a figure that another machine's logarithm and exponential may give otherwise."""


def summands(record: Record, spec: RunSpec) -> list[Digest]:
    """What a round's adapter is recomputed from: its updates, or its noised sum; none where the record lacks one."""
    if not spec.privacy.central:
        return [item.manifest.digest for item in record.closing.admitted]
    return [] if record.noise is None else [record.noise.noised_sum]


def trusted(spec: RunSpec) -> list[str]:
    """What the verdict on a run with central privacy rests on."""
    if not spec.privacy.central:
        return []
    return [
        "the aggregator clipped every update, added up those in the record and no others, and added noise of the stated size",
        "the aggregator showed no update to anybody, drew its noise keys at random and deleted them",
    ]


def checked_inputs(record: Record, spec: RunSpec, paths: Sequence[Path]) -> tuple[list[Finding], list[Input]]:
    """What the step is made of, from the files of `summands`, and what is wrong with their bytes."""
    if record.noise is not None and spec.privacy.central:
        what = "the noised sum's bytes differ from the digest in the record"
        right = digest_of_file(paths[0]) == record.noise.noised_sum
        return [] if right else [Finding(what, record.round)], [Input(1, paths[0])]
    admitted = record.closing.admitted
    inputs = [Input(item.weight, path) for item, path in zip(admitted, paths, strict=True)]
    return list(check_updates(admitted, paths, spec, record.step, record.round)), inputs


def check_noise(record: Record, before: Record | None, spec: RunSpec) -> Iterator[Finding]:
    """Clip norm, noise and ε of the record follow from the spec and the record before, which is None at first and where it
    cannot be seen."""
    noise, privacy = record.noise, spec.privacy
    if (noise is not None) != privacy.central:
        yield Finding(f"the record's noise does not fit a run with the mechanism {privacy.mechanism}", record.round)
    if noise is None or not privacy.central:
        return
    first, adaptive = record.step == 1, privacy.mechanism == "central_adaptive"
    wrong: list[str] = []
    if (first or before is not None or not adaptive) and noise.clip_norm != clip_norm_after(spec, before):
        wrong.append("clip_norm")
    if not near(noise.sigma, central.sigma_of(privacy, noise.clip_norm)):
        wrong.append("sigma")
    if noise.delta != privacy.delta:
        wrong.append("delta")
    least = 1 if before is None or before.noise is None else before.noise.releases + 1
    if noise.releases < least:
        wrong.append("releases")
    epsilon = central.told_epsilon(central.epsilon_after(privacy, noise.releases))
    if (noise.epsilon is None) != (epsilon is None) or (
        epsilon is not None and not near(noise.epsilon or 0.0, epsilon)
    ):
        wrong.append("epsilon")
    if privacy.epsilon and (epsilon is None or epsilon > privacy.epsilon * (1 + MARGIN)):
        yield Finding(f"epsilon {epsilon} is beyond the run's budget of {privacy.epsilon:g}", record.round)
    following = noise.clip_norm
    if adaptive and noise.unclipped is not None:
        following = central_adaptive.following(privacy, spec.ring, noise.clip_norm, noise.unclipped)
    if (noise.unclipped is not None) != adaptive or not near(noise.next_clip_norm, following):
        wrong.append("next_clip_norm")
    for name in wrong:
        yield Finding(
            f"the {name} of the record's noise does not follow from the spec and the record before", record.round
        )


def near(one: float, other: float) -> bool:
    """Whether two figures are the same but for a library's last digits."""
    return math.isclose(one, other, rel_tol=SHARE)
