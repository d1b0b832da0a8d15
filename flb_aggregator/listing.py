# SPDX-License-Identifier: Apache-2.0
"""Who may download what: by what the chain lists and the run's audit setting, never by presence in the store."""

from flb.roster import RunView
from flb.rounds import State, work_of
from flb.spec import RunSpec
from flb.types import Address, Admitted, Digest, Round


def admitted(state: State, node: Address) -> Admitted | None:
    """What the node has in the open round."""
    return work_of(state).admitted.get(node)


def listed(digest: Digest, spec: RunSpec, view: RunView, state: State, member: bool) -> bool:
    """Whether a caller may have a blob. The spec, adapters and records are open; updates follow `audit`."""
    adapters = {view.adapter} | {opened.base for opened in view.openings.values()}
    if digest == view.spec or digest in adapters:
        return True
    if any(digest in (roll.record_digest, roll.adapter_digest) for roll in view.rolls):
        return True
    return any(digest in updates(roll.round, spec, view, state, member) for roll in view.rolls)


def updates(number: Round, spec: RunSpec, view: RunView, state: State, member: bool) -> tuple[Digest, ...]:
    """Update digests of a sealed round, in order of node address, if this caller may see them."""
    if spec.audit == "off" or (spec.audit == "members" and not member):
        return ()
    opened = view.openings.get(number)
    work = state.works.get((number, opened.seed)) if opened else None
    if work is None or work.closing is None:
        return ()
    return tuple(admitted.manifest.digest for admitted in work.closing.admitted)
