# SPDX-License-Identifier: Apache-2.0
"""Which blobs an aggregator still needs, and the deletion of the others.

Needed for good: the spec, every adapter and every record. Updates of a sealed round are needed to recompute it, so
they stay as long as the policy says (`server.keep_updates`; null keeps all), and with them the encoded step, the
remainder and the optimizer's moments, if there are any; those of the last sealed round always stay, since the next one
starts from them. Updates of the open round stay whatever the policy says, as do those of rounds whose roll the chain
does not show yet. Everything else is left over: updates of void rounds, of openings that a reorg undid, of lost races.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from flb.errors import FLBError
from flb.roster import RunView
from flb.rounds import State
from flb.store import BlobStore
from flb.types import Digest, Round
from flb_aggregator.listing import in_record, of_step

UpdatesOf = Callable[[Digest], Iterable[Digest]]
"""The updates that a record names; empty where the record is not here."""


def needed(view: RunView, state: State, updates_of: UpdatesOf, keep: int | None, step_of: UpdatesOf) -> set[Digest]:
    """Digests that must stay. `view` holds under the run's confirmations, so what it shows is not undone.
    `step_of` names the encoded step, the remainder and the moments of a record."""
    found = {view.spec, view.adapter, *(opened.base for opened in view.openings.values())}
    kept = view.rolls if keep is None else view.rolls[max(0, len(view.rolls) - keep) :]
    for roll in view.rolls:
        found |= {roll.record_digest, roll.adapter_digest}
    for roll in kept:
        found |= {*updates_of(roll.record_digest), *step_of(roll.record_digest)}
    if keep is not None and len(view.rolls) > keep:  # the round before the first kept one gives remainder, moments
        found |= set(step_of(view.rolls[-keep - 1].record_digest))
    found |= set(_of_works(view, state, step_of))
    return found


def _of_works(view: RunView, state: State, step_of: UpdatesOf) -> Iterator[Digest]:
    """What openings that are not over have admitted and made."""
    first = view.opening.round if view.opening else first_after(view)
    for (number, _), work in state.works.items():
        if number < first:
            continue
        if work.roll is not None:
            yield from (work.roll.record_digest, work.roll.adapter_digest, *step_of(work.roll.record_digest))
        yield from (admitted.manifest.digest for admitted in work.admitted.values())


def first_after(view: RunView) -> Round:
    """The first round that is not over where none is open."""
    return Round(max((roll.round for roll in view.rolls), default=0) + 1)


def collect(
    blobs: BlobStore, view: RunView, state: State, own: set[Digest], keep: int | None, before: float,
    central: bool = False,
) -> int:  # fmt: skip
    """Delete what is neither needed nor in `own` and was stored before a time (Unix seconds); returns how many. Under
    `central` privacy no update of a sealed round stays, whatever the policy says: rounds are recomputed from noised sums."""

    def updates_of(record: Digest) -> tuple[Digest, ...]:
        try:
            return () if central else in_record(blobs, record)
        except FLBError:  # another aggregator made it, and it is not here
            return ()

    return blobs.delete_others(own | needed(view, state, updates_of, keep, partial(of_step, blobs)), before)
