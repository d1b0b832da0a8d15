# SPDX-License-Identifier: Apache-2.0
"""A full disk delays and loses nothing; whatever else is wrong with it ends the process."""

import asyncio
import errno
from collections.abc import Callable

DISK_SECONDS = 5.0
"""Wait after the disk was full."""
FULL = (errno.ENOSPC, errno.EDQUOT)


async def wait_for_disk(error: OSError, log: Callable[[str], None]) -> None:
    """Return after a while if the disk is full. Raises the error for everything else."""
    if error.errno not in FULL:
        raise error
    log("the disk is full; trying again")
    await asyncio.sleep(DISK_SECONDS)
