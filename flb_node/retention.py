# SPDX-License-Identifier: Apache-2.0
"""Which blobs a node still needs: the adapters and sealed updates of its last steps, and records that a claim's proof
comes from. Receipts are no blobs and stay."""

import json
from collections.abc import Set
from pathlib import Path

from flb.records import RING
from flb.roster import RunView
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest, Step


def payable(view: RunView) -> set[Digest]:
    """Records that a claim may still need: of the active payout, and of those that may become it."""
    newest = view.rolls[-1].round if view.rolls else 0
    return {
        roll.record_digest
        for roll in view.rolls
        if roll.payout_root != ZERO_DIGEST
        and (roll.round == view.payout_round or roll.round > max(view.payout_round, newest - RING))
    }


def tidy(
    folder: Path, blobs: BlobStore, view: RunView, step: Step, keep: int | None, further: Set[Digest] = frozenset()
) -> int:
    """After `step`, delete what belongs to steps more than `keep` before it (None keeps all); returns how many.

    What the chain may still ask for stays: the newest adapter, the one that the open round starts from, and records
    of payouts. So does what is `further` needed on this device.
    """
    if keep is None:
        return 0
    needed = {view.adapter} | further | ({view.opening.base} if view.opening else set()) | payable(view)
    for note in folder.glob("step-*.json"):
        try:
            fields = json.loads(note.read_bytes())
            if int(fields["step"]) > step - keep:
                needed |= {Digest(bytes.fromhex(fields[name])) for name in ("base", "digest")}
        except (ValueError, KeyError, TypeError):
            return 0  # a damaged note is named when it is needed; until then nothing is deleted
    return blobs.delete_others(needed, float("inf"))
