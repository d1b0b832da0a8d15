# SPDX-License-Identifier: Apache-2.0
"""How far a round's adapter is from the mean of the nodes' products, measured when nobody waits for the machine.

Where A and B are averaged each on its own, that takes another pass over the updates, several times as long as
combining them. It decides nothing, so it comes after the adapter is out and transfers have ended, in one thread.
"""

import asyncio
from collections.abc import Callable

from flb.errors import FLBError
from flb.records import Closing
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Opening
from flb_aggregator import outcome
from flb_aggregator.metrics import Metrics

QUIET_SECONDS = 2
"""No transfer has been open for so long."""
LONGEST_SECONDS = 600
"""After that it is measured all the same."""


async def measure_when_quiet(
    spec: RunSpec,
    opening: Opening,
    closing: Closing,
    blobs: BlobStore,
    metrics: Metrics,
    busy: Callable[[], bool],
    log: Callable[[str], None],
) -> None:
    """Wait for a quiet moment, measure, write it down. A round whose updates are gone by then has no such figure."""
    still = waited = 0
    while still < QUIET_SECONDS and waited < LONGEST_SECONDS:
        await asyncio.sleep(1)
        still, waited = (0 if busy() else still + 1), waited + 1
    try:
        figures = await asyncio.to_thread(outcome.figures_of, spec, opening, closing, blobs, 1)
        if figures:
            log(metrics.gap(opening.round, figures))
    except (FLBError, OSError) as error:
        log(f"round {opening.round}: its gap was not measured: {error}")
