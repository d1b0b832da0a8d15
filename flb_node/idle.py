# SPDX-License-Identifier: Apache-2.0
"""The one timeout of a transfer: it is given up when nothing has moved for a while, however long the whole takes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from flb.errors import AggregatorUnavailable

IDLE_SECONDS = 60.0
"""A transfer without progress for so long is given up and begun again where it stopped."""


class Progress:
    """When a transfer last moved."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.moved()

    def moved(self) -> None:
        """It moves now."""
        self.last = time.monotonic()


@contextmanager
def moving(call: Any, progress: Progress, seconds: float = IDLE_SECONDS) -> Iterator[None]:
    """Cancel a bulk call that stands still by its `progress`.

    A gRPC deadline would count the whole transfer, which may take hours on a thin link.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(min(1.0, seconds / 4)):
            if time.monotonic() - progress.last > seconds:
                call.cancel()
                return

    watcher = threading.Thread(target=watch, name="idle", daemon=True)
    watcher.start()
    try:
        yield
    except grpc.FutureCancelledError as error:
        raise AggregatorUnavailable(f"the transfer stood still for {seconds:g} s", "this node tries again") from error
    finally:
        over.set()
        watcher.join()
        call.cancel()
