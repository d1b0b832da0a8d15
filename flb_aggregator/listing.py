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
from flb.types import Address, Admitted, Digest


def admitted(state: State, node: Address) -> Admitted | None:
    """What the node has in the open round."""
    return work_of(state).admitted.get(node)


def listed(digest: Digest, spec: RunSpec, view: RunView, blobs: BlobStore, member: bool) -> bool:
    """Whether a caller may have a blob. The spec, adapters and records are open; updates follow `audit`."""
    adapters = {Digest(bytes.fromhex(spec.adapter)), view.adapter} | {opened.base for opened in view.openings.values()}
    if digest == view.spec or digest in adapters:
        return True
    if any(digest in (roll.record_digest, roll.adapter_digest) for roll in view.rolls):
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


@lru_cache(maxsize=4096)
def in_record(blobs: BlobStore, record: Digest) -> tuple[Digest, ...]:
    """Update digests that a record names; records never change. Raises FLBError where the record is not here."""
    closing = records.decode(blobs.get(record)).closing
    return tuple(admitted.manifest.digest for admitted in closing.admitted)
