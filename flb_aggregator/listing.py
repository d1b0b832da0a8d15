# SPDX-License-Identifier: Apache-2.0
"""Who may download what: by what the chain lists and the run's audit setting, never by presence in the store."""

from functools import lru_cache
from typing import NamedTuple

from flb import records
from flb.errors import FLBError
from flb.events import ChainRoundRolled
from flb.moments import keeps_moments
from flb.roster import RunView
from flb.rounds import State, work_of
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Admitted, Digest


def admitted(state: State, node: Address) -> Admitted | None:
    """What the node has in the open round."""
    return work_of(state).admitted.get(node)


def listed(digest: Digest, spec: RunSpec, view: RunView, blobs: BlobStore, member: bool) -> bool:
    """Whether a caller may have a blob. The spec, adapters, records, encoded steps and their remainders are open; moments of
    the server optimizer are for members, and updates follow `audit`."""
    adapters = {Digest(bytes.fromhex(spec.adapter)), view.adapter} | {opened.base for opened in view.openings.values()}
    if digest == view.spec or digest in adapters:
        return True
    if any(digest in (roll.record_digest, roll.adapter_digest) for roll in view.rolls):
        return True
    if any(digest in left_to(member, blobs, roll.record_digest, spec) for roll in view.rolls):
        return True
    return any(digest in updates(roll, spec, blobs, member) for roll in view.rolls)


def updates(roll: ChainRoundRolled, spec: RunSpec, blobs: BlobStore, member: bool) -> tuple[Digest, ...]:
    """Update digests of a sealed round, in order of node address, if this caller may see them."""
    if spec.audit == "off" or (spec.audit == "members" and not member):
        return ()
    try:
        return in_record(blobs, roll.record_digest)
    except FLBError:  # another aggregator made the record, and it is not here
        return ()


def last_record(view: RunView) -> Digest:
    """The newest sealed round's record, which made the newest adapter; zero before the first."""
    return view.rolls[-1].record_digest if view.rolls else ZERO_DIGEST


def of_step(blobs: BlobStore, record: Digest) -> tuple[Digest, ...]:
    """What a sealed round left besides its adapter: encoded step, remainder, noised sum, moments; none where its record is not here."""
    try:
        named_here = named(blobs, record)
    except FLBError:
        return ()
    return (*named_here.step, *named_here.moments)


def left_to(member: bool, blobs: BlobStore, record: Digest, spec: RunSpec) -> tuple[Digest, ...]:
    """What of that a caller may have: encoded step, remainder and noised sum anybody; the moments members, who could lead the run on,
    and everybody where the updates that make them are public."""
    # a stranger's question must not cost a decoded record a round that left nothing for strangers
    shown = keeps_moments(spec) and (member or spec.audit == "public")
    if not (spec.encodes_steps or spec.privacy.central or shown):
        return ()
    try:
        named_here = named(blobs, record)
    except FLBError:
        return ()
    return (*named_here.step, *(named_here.moments if shown else ()))


def in_record(blobs: BlobStore, record: Digest) -> tuple[Digest, ...]:
    """Update digests that a record names. Raises FLBError where the record is not here."""
    return named(blobs, record).updates


class Named(NamedTuple):
    """Blobs that a record names: updates; encoded step, remainder and noised sum; moments of the server optimizer."""

    updates: tuple[Digest, ...]
    step: tuple[Digest, ...]
    moments: tuple[Digest, ...]


@lru_cache(maxsize=4096)
def named(blobs: BlobStore, record: Digest) -> Named:
    """What a record names; records never change. Raises FLBError."""
    read = records.decode(blobs.get(record))
    summed = read.noise.noised_sum if read.noise is not None else ZERO_DIGEST
    step, moments = (
        tuple(digest for digest in digests if digest != ZERO_DIGEST)
        for digests in ((read.down, read.remainder, summed), (read.optimizer_state,))
    )
    return Named(tuple(admitted.manifest.digest for admitted in read.closing.admitted), step, moments)
