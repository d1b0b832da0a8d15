# SPDX-License-Identifier: Apache-2.0
"""Who may download what: by what the chain lists and the run's audit setting, never by presence in the store."""

from functools import lru_cache

from flb import records
from flb.errors import FLBError
from flb.events import ChainRoundRolled
from flb.roster import RunView
from flb.rounds import State, work_of
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Admitted, Digest


def admitted(state: State, node: Address) -> Admitted | None:
    """What the node has in the open round."""
    return work_of(state).admitted.get(node)


def listed(digest: Digest, spec: RunSpec, view: RunView, blobs: BlobStore, member: bool) -> bool:
    """Whether a caller may have a blob. The spec, adapters, records, encoded steps and their remainders are open; updates
    follow `audit`."""
    adapters = {Digest(bytes.fromhex(spec.adapter)), view.adapter} | {opened.base for opened in view.openings.values()}
    if digest == view.spec or digest in adapters:
        return True
    if any(digest in (roll.record_digest, roll.adapter_digest) for roll in view.rolls):
        return True
    # a stranger's question must not cost a decoded record a round where no step travels encoded
    if spec.encodes_steps and any(digest in of_step(blobs, roll.record_digest) for roll in view.rolls):
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
    """What a sealed round left besides its adapter: encoded step, remainder, moments; none where its record is not here."""
    try:
        return named(blobs, record)[1]
    except FLBError:
        return ()


def in_record(blobs: BlobStore, record: Digest) -> tuple[Digest, ...]:
    """Update digests that a record names. Raises FLBError where the record is not here."""
    return named(blobs, record)[0]


@lru_cache(maxsize=4096)
def named(blobs: BlobStore, record: Digest) -> tuple[tuple[Digest, ...], tuple[Digest, ...]]:
    """Updates that a record names, and what the round left besides its adapter; records never change. Raises FLBError."""
    read = records.decode(blobs.get(record))
    left = (read.down, read.remainder, read.optimizer_state)
    of_step = tuple(digest for digest in left if digest != ZERO_DIGEST)
    return tuple(admitted.manifest.digest for admitted in read.closing.admitted), of_step
